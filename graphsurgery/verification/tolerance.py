"""How far an output y may lie from its reference, per element type.

    |actual - y| <= absolute * s + relative * |y|,    s = the largest |y|, kept within 1e-3 ... 1

The reference is computed in float64 from an input x that was rounded to the site's type first, so what is allowed for
is the rounding of the block's own arithmetic and nothing else.

- float32 (unit 1.2e-7): 1e-5 and 1e-5. Correct formulations differ by some 1e-7; sums over a large map cost up to 1e-5.
- float16 (unit 9.8e-4): 2.5e-3 and 1e-3, about one unit, as in onnxruntime's own provider tests. Half a unit is for the
  product, a quarter for the gate, the rest for what is inside the sigmoid.
- bfloat16 (unit 7.8e-3): 2e-2 and 1e-2, the same reasoning and the same source.
- float64 (unit 2.2e-16): 1e-10 and 1e-10. The reference has the same rounding, so it cannot be asked to be better than
  this; epsilons are stored as float32 attributes in ONNX, which alone can cost 1e-8 times the epsilon.

The absolute part is meant for signals of order one. It shrinks with a smaller signal (s), because otherwise an input of
1e-3 could not fail in float16 whatever the block did with it.

Where every operation really is rounded to half precision (rounding.py, and providers other than the CPU's, which
computes in float32), the error is relative to max(|x|, |y|) instead: attention weighs its input, so an error d of the
gate is an error d * |x| of the output, however small y is there. rounding.py rounds where a fused kernel would not, and
gets twice as much. What those runs are there to find, overflow and cancellation, is off by hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..feature_map import Array
from ..modelfile.record import Insertion
from ..template.writer import HALVES, computed_in

_SMALLEST_SCALE = 1e-3


@dataclass(frozen=True)
class Tolerance:
    """``absolute`` is in the unit of the tensor, ``relative`` has none."""

    absolute: float
    relative: float
    weighs_input: bool = False
    """Whether the relative part refers to max(|x|, |y|) instead of |y|."""

    slack: float = 0.0
    """Permitted on top everywhere, in the unit of the tensor (see conditioning.py)."""

    rounding: float = 0.0
    """Permitted on top of each element, relative to max(|x|, |y|) (see conditioning.py)."""

    smallest: float = 0.0
    """What smaller |x| and |y| count as for that, in the unit of the tensor: a convolution leaves its neighbours'
    rounding where both are nearly 0."""

    def allowed(
        self, expected: Array, signal: Array | None = None, peak: float | None = None
    ) -> npt.NDArray[np.float64]:
        """The largest permitted error for each element of ``expected``, which is finite; the same shape.

        ``signal``: the block's input x, of the same shape (its elements that are not finite do not count); it counts
        only where the tolerance weighs the input. ``peak``: the largest |expected| of the tensor that ``expected`` is
        a part of; None where it is the whole.
        """
        size: npt.NDArray[np.float64] = np.abs(expected, dtype=np.float64)
        peak = float(size.max(initial=0.0)) if peak is None else peak
        everywhere = self.absolute * min(max(peak, _SMALLEST_SCALE), 1.0) + self.slack
        larger = size
        if signal is not None and (self.weighs_input or self.rounding):
            wide = np.abs(signal.astype(np.float64))
            larger = np.maximum(size, wide, out=size.copy(), where=np.isfinite(wide))
        on_top = self.rounding * np.maximum(larger, self.smallest) if self.rounding else 0.0
        size = larger if self.weighs_input else size
        size *= self.relative
        size += everywhere + on_top
        return size

    def widened(self, relative: float) -> Tolerance:
        """One in which an error of that much of the input or output is permitted, whichever is larger there."""
        return replace(self, relative=max(self.relative, relative), weighs_input=True)

    def weighing_input(self, factor: float = 1.0) -> Tolerance:
        """One for arithmetic in half precision: relative to the input as well, and wider by a factor."""
        return Tolerance(self.absolute * factor, self.relative * factor, weighs_input=True)

    def to_json(self) -> dict[str, float]:
        """The stated part, without what was permitted on top."""
        return {"absolute": self.absolute, "relative": self.relative}

    def __str__(self) -> str:
        return f"{self.absolute:g} + {self.relative:g}*{'max(|x|,|y|)' if self.weighs_input else '|y|'}"


TOLERANCES: dict[str, Tolerance] = {
    "float32": Tolerance(1e-5, 1e-5),
    "float16": Tolerance(2.5e-3, 1e-3),
    "bfloat16": Tolerance(2e-2, 1e-2),
    "float64": Tolerance(1e-10, 1e-10),
}
"""By the element type of the site."""

ROUNDED = 2.0
"""How much wider it is where every intermediate result is rounded to half precision."""


def comparison_dtype(insertion: Insertion) -> str:
    """The element type whose tolerance a block is held to: the coarser one of its site's and its own."""
    computed = computed_in(insertion.site.dtype, insertion.precision)
    return computed if computed in HALVES else insertion.site.dtype
