"""NVIDIA's own parser and builder, of TensorRT for RTX, on a machine without a GPU.

libraries.py   where they lie, and of which version they are
driver/        what runs in the child process: the binding, and the questions
child.py       the process, its time limit, and what it died of
proof.py       the built-in models on which they have to be right first
examine.py     a model in, an opinion out
ask.py         whether it is asked at all
findings.py    what they refuse, as findings of a check
"""

from __future__ import annotations

from .asking import PARSERS, ask
from .opinion import NotAsked, Opinion, Refusal

__all__ = ["PARSERS", "NotAsked", "Opinion", "Refusal", "ask"]
