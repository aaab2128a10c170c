"""Parity of a whole file, as it is deployed, with the whole PyTorch module that it was made from.

comparison.py is the way in; sources.py has where modules come from. Data flows one way: the two sides (deployed, live)
-> what their outputs are (pair, layout, ultralytics_heads) -> distances (matching, precision, queries), and weights of
blocks (block_weights) -> report; where they differ, bisection.
"""

from __future__ import annotations

from .comparison import compare
from .report import FirstDifference, QuantityReport, WholeReport
from .sources import from_checkpoint, from_factory

__all__ = ["FirstDifference", "QuantityReport", "WholeReport", "compare", "from_checkpoint", "from_factory"]
