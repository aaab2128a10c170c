"""Blocks in a live PyTorch model: the same recipe as for a file, so that what is trained is what is deployed.

    from graphsurgery import torch as gt

    gt.attach(model, "recipe.yaml", example)        # example: what the model takes, a tensor [1, 3, 640, 640] say
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

Every old key, name, type and output of the model stays; :func:`detach` gives back the model as it was. Attach *before*
the model is handed to an optimizer, an EMA, ``DistributedDataParallel`` or ``torch.compile``: these take hold of the
parameters and the forward pass that they find. Importing this package imports torch.
"""

from __future__ import annotations

from ..blocks.calibrated_module import CalibratedBlock
from ..blocks.residual_module import ResidualGate
from ..weights.attachment import Attachment
from .attaching import attach
from .detaching import attachments, block_parameters, detach
from .files import load_blocks, save_blocks
from .freezing import freeze_rest
from .parity import WholeReport, compare

__all__ = [
    "Attachment",
    "CalibratedBlock",
    "ResidualGate",
    "WholeReport",
    "attach",
    "attachments",
    "block_parameters",
    "compare",
    "detach",
    "freeze_rest",
    "load_blocks",
    "save_blocks",
]
