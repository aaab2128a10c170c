"""Sweep: many blocks at many places of one model, each measured in the same way, as one table.

run.py is the way in. grid.py makes the cells and running.py goes through them: figures.py examines each without a
clock (several at once), latency.py times them (one at a time), budgets.py ranks them, and files.py writes what is known
after each step; pace.py says how long the rest takes. reading.py tells the detections in a model's outputs.
"""

from __future__ import annotations

from .report import Sweep
from .run import sweep

__all__ = ["Sweep", "sweep"]
