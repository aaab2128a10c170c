"""Latency: of whole models in onnxruntime before and after an edit, and what other measurements are made of.

whole.py is the way in. timing.py measures in turns and judges differences, inputs.py makes what models are fed with,
machine.py says where it was measured.
"""

from __future__ import annotations

from .report import BenchReport, Side, Timed
from .whole import bench

__all__ = ["BenchReport", "Side", "Timed", "bench"]
