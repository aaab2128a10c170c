"""The QuantizeLinear and DequantizeLinear behind a block: they may change a value by half a step, and clip it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import CannotRun, NoKernel, ParityFailed
from ..runtime.session import session
from .conditioning import UNITS
from .cutout import numpy_dtype, pair_of
from .metrics import compare
from .report import Mode
from .runners import Runner
from .tolerance import Tolerance

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion

Array = npt.NDArray[Any]

_ROUNDINGS = 4.0
"""The division by the scale, the product with it, and a Cast on either side, each rounds once."""


class PairCheck:
    """Runs the pair of one insertion on the CPU, as it stands in the file, with what the PyTorch module gave."""

    def __init__(self, model: ModelFile, insertion: Insertion) -> None:
        assert insertion.qdq is not None
        self._dtype = insertion.site.dtype
        self.runner = Runner("cpu", Mode.QUANTISED, Tolerance(0.0, _ROUNDINGS * UNITS[self._dtype]))
        """what was found; has failed where the pair is no longer in the model, or cannot run"""
        try:
            cutout = pair_of(model, insertion)
            self._measure(model, insertion)
            ready = session(cutout.model.SerializeToString(), "cpu", optimise=False, threads=1)
        except (NoKernel, CannotRun, ParityFailed, KeyError) as error:
            missing = isinstance(error, KeyError)
            reason = "the scale of the pair is no longer in the model" if missing else str(error)
            self.runner.stop(error if isinstance(error, NoKernel) else CannotRun(reason))
            return
        self.runner.run = lambda array: ready.run({cutout.input: array})[0]

    def _measure(self, model: ModelFile, insertion: Insertion) -> None:
        """Note the size of a step and the range, for the whole tensor or for each channel."""
        assert insertion.qdq is not None
        scale = model.tensor(insertion.qdq.scale).astype(np.float64)
        zero_point = model.tensor(insertion.qdq.zero_point)
        kind = np.iinfo(zero_point.dtype)
        shape = (1, -1, 1, 1) if scale.size > 1 else ()
        zero = zero_point.astype(np.float64)
        self._step = float(scale.max())
        self._low, self._high = (((end - zero) * scale).reshape(shape) for end in (kind.min, kind.max))

    def judge(self, case: str, given: Array) -> None:
        """Compare on the values (float64) that the block should give."""
        if self.runner.run is None:
            return
        values = given.astype(numpy_dtype(self._dtype))
        expected = np.clip(values.astype(np.float64), self._low, self._high)
        try:
            actual = self.runner.run(values)
        except (NoKernel, CannotRun) as error:
            self.runner.stop(error)
            return
        limits = replace(self.runner.tolerance, slack=self._step / 2)
        self.runner.record(case, compare(actual, expected, self._dtype, tolerance=limits))
