"""Parity: whether an inserted block computes what its PyTorch module computes, and the rest of the model what it did.

comparison.py is the way in. Data flows one way: cases and activations (images) -> runners (cutout, rounding) ->
metrics (tolerance) -> report.
"""

from __future__ import annotations

from .comparison import verify
from .memory import MEMORY
from .report import InsertionReport, Mode, Report, Row, Verdict, Worst

__all__ = ["MEMORY", "InsertionReport", "Mode", "Report", "Row", "Verdict", "Worst", "verify"]
