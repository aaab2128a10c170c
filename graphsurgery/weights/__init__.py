"""Weights for a block from a file of trained weights. Nothing in a file is ever executed.

    FILE[:PREFIX]      .safetensors, .npz, .pt and .pth (state_dicts and whole checkpoints), .onnx

files.py finds the reader of a file, checkpoint.py is what every reader gives, fitting.py makes a block's parameters
of it, lookalike.py says what a file has instead of what was asked for.
"""

from __future__ import annotations

from .checkpoint import Checkpoint
from .files import read, split
from .fitting import Fitted, fit, fitted, part

__all__ = ["Checkpoint", "Fitted", "fit", "fitted", "part", "read", "split"]
