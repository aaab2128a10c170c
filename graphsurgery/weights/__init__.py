"""Weights for a block from a file of trained weights. Nothing in a file is ever executed.

    FILE[:PREFIX]      .safetensors, .npz, .pt and its other names (state_dicts and whole checkpoints), .onnx

files.py finds the reader of a file (torchfile, nested and inert; onnxfile, exported, multihead and tracing),
checkpoint.py is what every reader gives. fitting.py makes a block's parameters of it: with unfolded.py, what an
exporter folded; with asked.py, what the user asked for; with variants.py, whose keys they are.
lookalike.py says what a file has instead.
"""

from __future__ import annotations

from .checkpoint import Checkpoint
from .fit import Fitted, fit, fitted, part
from .read import read, split

__all__ = ["Checkpoint", "Fitted", "fit", "fitted", "part", "read", "split"]
