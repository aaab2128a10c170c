"""Latency: of whole models in onnxruntime before and after an edit, and what other measurements are made of.

whole.py is the way in. inputs.py makes what models are fed with, machine.py says where it was measured; what may be
said of a difference is in runtime/timing.py.
"""

from __future__ import annotations

from .report import BenchReport, Side, Timed
from .whole import bench

__all__ = ["BenchReport", "Side", "Timed", "bench"]
