"""Inserted blocks rebuilt from their records: the block, the weights that the model holds, the PyTorch module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..blocks.block import Block
from ..blocks.size import check_size
from ..errors import InsertionError
from ..modelfile.function_body import graph_of
from ..modelfile.model import ModelFile
from ..modelfile.record import Insertion, rebuild_with
from ..template.around import Around
from ..template.weight_folding import read_back
from . import NO_TRUST, Trust, make_block

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, np.ndarray[Any, Any]]


def block_of(insertion: Insertion, trust: Trust = NO_TRUST) -> Block:
    """The block with its hyper-parameters. BlockError if it is not installed here."""
    return make_block(insertion.module, insertion.settings, trust)


def weights_of(insertion: Insertion, model: ModelFile, trust: Trust = NO_TRUST) -> dict[str, np.ndarray[Any, Any]]:
    """The module's parameters by official key, float64, read back from the model as it stands.

    InsertionError if they are no longer where they were put; MissingDependency for a PyTorch module of the user's own
    that ``trust`` does not name.
    """
    block = block_of(insertion, trust)
    check_size(block, insertion.feature)
    feature = insertion.feature
    shapes = {**block.parameters(feature), **Around.of(insertion.gate, insertion.stored).parameters(feature.channels)}
    try:
        return read_back(insertion.stored, shapes, graph_of(model, insertion.function).tensor)
    except (LookupError, ValueError, TypeError):
        raise InsertionError(
            f"the weights of {insertion.id} are not in the model as its record says; another tool has changed them"
        ) from None


def module_of(insertion: Insertion, model: ModelFile, trust: Trust = NO_TRUST) -> torch.nn.Module:
    """The PyTorch module with the weights in the model, and what stands around it: float64, evaluation mode.

    Imports torch.
    """
    return module_with(insertion, weights_of(insertion, model, trust), trust)


def module_with(insertion: Insertion, weights: Weights, trust: Trust = NO_TRUST) -> torch.nn.Module:
    """The same with these weights, as ``weights_of`` gives them."""
    from ..blocks.wrapped_module import with_weights

    feature = insertion.feature
    module = block_of(insertion, trust).module(feature)
    return with_weights(module, feature.channels, Around.of(insertion.gate, insertion.stored), weights).eval()


rebuild_with(
    block=lambda insertion, trust: block_of(insertion, Trust.in_modules(trust)),
    weights=lambda insertion, model, trust: weights_of(insertion, model, Trust.in_modules(trust)),
    torch_module=lambda insertion, model, trust: module_of(insertion, model, Trust.in_modules(trust)),
)
