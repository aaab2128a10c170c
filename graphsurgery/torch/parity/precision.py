"""The element types in which both sides are computed, and how far rounding alone moves what a module gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch

from ...errors import RequestError
from ...feature_map import Array
from .deployed import Deployed
from .layout import Layout
from .matching import distances

_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Precision:
    """Of a file and what it is fed with."""

    TIMES: ClassVar[float] = 8.0
    """How often the module's own rounding is permitted. The file sums in another order, and the largest of very many
    errors scatters: on eleven heads of Ultralytics it was 0.9 to 2.8 times that of torch."""

    def __init__(self, deployed: Deployed, feeds: dict[str, Array]) -> None:
        double = any(array.dtype == np.float64 for array in feeds.values())
        self.expected = torch.float64 if double else torch.float32
        """what the module is computed in"""
        half = _HALVES.get(deployed.in_half)
        self.kinds: tuple[torch.dtype, torch.dtype] = (
            (half, torch.float32) if half is not None else (torch.float32, torch.float64)
        )
        """the element type that the file computes in, and a finer one"""

    def rounding(self, layout: Layout, run: Callable[[torch.dtype], Sequence[Array]]) -> dict[str, float]:
        """How far each quantity is off when the module itself is computed in the file's element type, as against a
        finer one; none where torch cannot do that.
        """
        if self.expected is torch.float64:
            return {}
        try:
            coarse, fine = (run(kind) for kind in self.kinds)
        except RequestError:
            return {}
        return {each.quantity: each.error for each in distances(layout, coarse, fine) if math.isfinite(each.error)}
