"""Weights for a block from a file of trained weights. Nothing in a file is ever executed.

    FILE[:PREFIX]      .safetensors, .npz, .pt and its other names (state_dicts and whole checkpoints), .onnx

read.py finds the reader of a file: torch_file.py (with state_dict_search.py and inert_unpickler.py) or onnx_file.py
(with exported_graph.py, exported_names.py and exported_attention.py). What a reader gives is a Checkpoint, of which
placing.py finds the part for a place. fit.py turns that into a block's parameters, with around.py for what stands
around a block, with refold.py for what an exporter folded, settings_conflict.py for what the user asked for, and
variants.py for keys that are another variant's. key_alignment.py reads keys that no port is known by, host.py those
with others beside them; hints.py says what a file has instead.

trained_blocks.py has the blocks that were trained in a live model, with their places (attachment.py) and what the rest
of that model is known by (rest.py, fingerprint.py, sketch.py); pickled_blocks.py finds them in a checkpoint.
layer_alignment.py and remapping.py renumber a checkpoint for a YAML with layers inserted.
"""

from __future__ import annotations

from .around import apart
from .checkpoint import Checkpoint, Fitted, widened
from .fit import fitted, without_weights
from .placing import part
from .read import read, split
from .trained_blocks import TrainedBlocks

__all__ = [
    "Checkpoint",
    "Fitted",
    "TrainedBlocks",
    "apart",
    "fitted",
    "part",
    "read",
    "split",
    "widened",
    "without_weights",
]
