"""NVIDIA's own parser and builder, of TensorRT for RTX, on a machine without a GPU.

asking.py      whether they are asked at all
libraries.py   where they lie, and of which version they are
examine.py     a model in, an opinion out
child.py       the process that holds them, its time limit, and what it died of
driver/        what runs in it: the binding, and the questions
proof.py       the built-in models on which they have to be right first
again.py       the nodes that are refused behind the first
opinion.py     what they say
findings.py    what they refuse, as findings of a check
"""

from __future__ import annotations

from .asking import PARSERS, ask
from .opinion import NotAsked, Opinion, Refusal

__all__ = ["PARSERS", "NotAsked", "Opinion", "Refusal", "ask"]
