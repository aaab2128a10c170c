"""The QuantizeLinear and DequantizeLinear after a block: they may change a value by half a step, and clip it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CannotRun, ParityFailed
from ..feature_map import Array, numpy_dtype
from ..runtime.session import session
from .conditioning import UNITS
from .cutout import pair_of
from .metrics import compare
from .report import Mode, Row
from .runners import Runner
from .tolerance import Tolerance

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion

_ROUNDINGS = 4.0
"""The division by the scale, the product with it, and a Cast on either side, each rounds once."""


class PairCheck:
    """Runs the pair of one insertion on the CPU, as it stands in the file, with what the PyTorch module gave."""

    def __init__(self, model: ModelFile, insertion: Insertion) -> None:
        self._dtype = insertion.site.dtype
        tolerance = Tolerance(0.0, _ROUNDINGS * UNITS[self._dtype])
        self.runner = Runner(Row(provider="cpu", mode=Mode.QUANTISED, tolerance=tolerance))
        """what was found; has failed where the pair is no longer in the model, or cannot run"""
        with self.runner.stopping():
            try:
                cutout = pair_of(model, insertion)
                self._read_range(model, insertion)
            except KeyError:
                raise CannotRun("the scale of the pair is no longer in the model") from None
            except ParityFailed as error:
                raise CannotRun(str(error)) from None
            ready = session(cutout.model.SerializeToString(), "cpu", optimise=False, threads=1)
            self.runner.run = lambda array: ready.run({cutout.input: array})[0]

    def _read_range(self, model: ModelFile, insertion: Insertion) -> None:
        """Note the size of a step and the range, for the whole tensor or for each channel."""
        assert insertion.qdq is not None
        scale = model.tensor(insertion.qdq.scale).astype(np.float64)
        zero_point = model.tensor(insertion.qdq.zero_point)
        kind = np.iinfo(zero_point.dtype)
        shape = (1, -1, 1, 1) if scale.size > 1 else ()
        zero = zero_point.astype(np.float64)
        self._step = float(scale.max())
        self._low, self._high = (((end - zero) * scale).reshape(shape) for end in (kind.min, kind.max))

    def compare(self, case: str, given: Array) -> None:
        """Compare on the values (float64) that the block should give."""
        values = given.astype(numpy_dtype(self._dtype))
        actual = self.runner.output(values)
        if actual is not None:
            expected = np.clip(values.astype(np.float64), self._low, self._high)
            limits = replace(self.runner.row.tolerance, slack=self._step / 2)
            self.runner.record(case, compare(actual, expected, self._dtype, tolerance=limits))
