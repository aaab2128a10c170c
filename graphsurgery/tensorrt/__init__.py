"""TensorRT: whether it takes a model, in which types a block runs there, the commands to build it, and the engine.

Nothing here needs TensorRT but engine.py and the second opinion of parser.py, which import it when they are called, and
rtx/, which asks NVIDIA's parser of TensorRT for RTX in a process of its own.
Data flows one way: support (the table) and view (the model) -> rules -> check; precision -> commands -> engine.
"""

from __future__ import annotations

from .check import TensorRTReport, check, findings
from .rule import Finding
from .support import Version

__all__ = ["Finding", "TensorRTReport", "Version", "check", "findings"]
