"""Parity: whether an inserted block computes what its PyTorch module computes, and the rest of the model what it did.

verification.py is the way in. Data flows one way: cases and activations (images) -> runners (cutout, stepwise) ->
metrics (tolerance) -> report.
"""

from __future__ import annotations

from .report import InsertionReport, Mode, Report, Rest, Row, Verdict, Worst
from .verify import verify

__all__ = ["InsertionReport", "Mode", "Report", "Rest", "Row", "Verdict", "Worst", "verify"]
