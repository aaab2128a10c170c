"""How far an output may lie from its reference, per element type.

    |actual - expected| <= absolute * s + relative * |expected|,    s = the largest |expected|, kept within 1e-3 ... 1

The reference is computed in float64 from an input that was rounded to the site's type first, so what is allowed for is
the rounding of the block's own arithmetic and nothing else. A gate is a handful of operations: each adds half a unit
in the last place of its result, and the gate, between 0 and 1, is multiplied with x at the end.

- float32 (unit 1.2e-7): 1e-5 + 1e-5 |y|. A block's correct formulations differ by some 1e-7 times |y|, sums over a
  large map and the vectorised sigmoid of onnxruntime (1.8e-7 off) by up to 1e-6 times |y|.
- float16 (unit 9.8e-4): 2.5e-3 + 1e-3 |y|, about one unit: what onnxruntime's own provider tests use. Half a unit is
  for the product, a quarter for the gate, the rest for what is inside the sigmoid.
- bfloat16 (unit 7.8e-3): 2e-2 + 1e-2 |y|, the same reasoning and the same source.
- float64 (unit 2.2e-16): 1e-10 + 1e-10 |y|. The reference has the same rounding, so it cannot be asked to be better
  than this; epsilons are stored as float32 attributes in ONNX, which alone can cost 1e-8 times the epsilon.

The absolute part is meant for signals of order one. It shrinks with a smaller signal (s), because otherwise an input of
1e-3 could not fail in float16 whatever the block did with it.

A block that is rounded to half precision after every node (stepwise.py) gets four times this. Where a sigmoid is small,
the rounding of its argument z weighs |z| / 2 units of the result, and no way of computing it in half precision is
better. Correct blocks reach 1.2 times the tolerance; what that run is there to find, overflow and cancellation, is off
by hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_SMALLEST_SCALE = 1e-3


@dataclass(frozen=True)
class Tolerance:
    """``absolute`` is in the unit of the tensor, ``relative`` has none."""

    absolute: float
    relative: float

    def allowed(self, expected: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The largest permitted error for each element of ``expected``; the same shape."""
        size = np.abs(expected)
        finite = size[np.isfinite(size)] if not np.isfinite(size).all() else size
        peak = float(finite.max()) if finite.size else 1.0
        size *= self.relative
        size += self.absolute * min(max(peak, _SMALLEST_SCALE), 1.0)
        return size

    def times(self, factor: float) -> Tolerance:
        """One that is wider by a factor."""
        return Tolerance(self.absolute * factor, self.relative * factor)

    def __str__(self) -> str:
        return f"{self.absolute:g} + {self.relative:g}*|y|"


TOLERANCES: dict[str, Tolerance] = {
    "float32": Tolerance(1e-5, 1e-5),
    "float16": Tolerance(2.5e-3, 1e-3),
    "bfloat16": Tolerance(2e-2, 1e-2),
    "float64": Tolerance(1e-10, 1e-10),
}
"""By the element type of the site."""

ROUNDED = 4.0
"""How much wider it is where every intermediate result is rounded to half precision."""
