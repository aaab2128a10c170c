"""How far a module's result moves when every intermediate result is rounded anew.

Some blocks multiply rounding errors. A softmax over products of queries and keys does: a logit grows with the square of
the input, its error with it, and the result moves by that error, relatively. So does a gate without a bound, where the
terms of a sum cancel, and a normalisation of a map that hardly varies, where the error of the mean is divided by a tiny
deviation. No arithmetic of the site's type can agree better with float64 than the module does with itself when the last
bits of what it is given, and of what it computes on the way, change. Modules that are so say it with a class attribute
``sharp = True``; for them that movement is measured, input by input, and permitted on top of the tolerance.

Of other modules it is measured only where a comparison fails, relative to the larger of |x| and |y|: a gate that closes
leaves of a large x the error of the gate, and a sum of large terms leaves its rounding in the argument of the gate. In
half precision the tolerance is about one unit in the last place, which the errors of a few operators in a row exceed
for one input in thousands. A wrong function moves the result by more than its own rounding on one of the inputs at
least.

Rounding is not all: some operators of onnxruntime are approximations (see _APPROXIMATED), whose error belongs to it.

The method is that of stochastic arithmetic (Vignes, "A stochastic arithmetic for reliable scientific computation",
1993).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..feature_map import Array
from ..template.writer import HALVES
from .perturbation import perturbed
from .tolerance import TOLERANCES

if TYPE_CHECKING:
    import torch

UNITS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 2.0**-53}
"""Largest relative error of rounding to the type."""

_FACTOR = {"float32": 24.0, "float64": 24.0, "float16": 4.0, "bfloat16": 4.0}
"""The operators in between round as well. Sums of half-precision numbers are made in float32."""
_RELATIVE_FACTOR = 10.0
"""For float32, relative to |x| and |y|, where sums are made in float32, too. Measured in 16 blocks on activations of 3
to 7000, onnxruntime was off by up to 6.9 times what this method finds, PyTorch by 8.5 (GAM is the worst of them)."""
_APPROXIMATED = {"sigmoid": 1.7e-7, "tanh": 3.3e-7}
"""Operator of torch -> in float32, largest absolute error of onnxruntime's. Measured over [-30, 30] in steps of
1.5e-5, onnxruntime 1.31 on x86-64: its Sigmoid and Tanh are rational approximations (MLAS, logistic.cpp and tanh.cpp)
that are 0 from -18 on and off by 1.4e-7 where they are nearly 0. Erf and Exp are within a unit, as the rounding is."""
_DRAWS = 2
_UNSTEADY = 1e-3
"""Where rounding alone moves a result by this much of it, another input tells more."""
_FLOOR = 1e-3
"""share of the largest value below which one does not count as a size to be relative to"""


class Conditioning:
    """Measures one module (float64, evaluation mode) for one element type of the site."""

    def __init__(self, module: torch.nn.Module, dtype: str) -> None:
        self._module, self._dtype = module, dtype
        self._unit, self._factor = UNITS[dtype], _FACTOR[dtype]
        self._half = dtype in HALVES
        self._approximated = _APPROXIMATED if dtype == "float32" else {}
        self._sharp = any(getattr(part, "sharp", False) for part in module.modules())

    def slack(self, x: Array, expected: Array) -> float:
        """What is permitted on top of the tolerance for the input ``x``, for which the module gave ``expected``.

        In the unit of the output; 0 for a module that is not sharp.
        """
        if not self._sharp:
            return 0.0
        found = max(float(np.abs(moved - expected).max(initial=0.0)) for moved in self._results(x))
        found += self._unit * float(np.abs(expected).max(initial=0.0))  # the result is rounded, too
        return self._factor * found if np.isfinite(found) else 0.0

    def permitted(self, x: Array, expected: Array) -> Array | None:
        """The largest error of each element that a comparison permits for the input ``x``, all that is on top included.

        None where rounding moves the result so far that it decides what comes out. Not for half precision.
        """
        if not np.isfinite(expected).all():
            return None
        tolerance = TOLERANCES[self._dtype]
        if self._dtype == "float32" and x.shape == expected.shape:
            moved, smallest = _RELATIVE_FACTOR * self._moved(x, expected), _smallest(_sizes(x, expected))
            slack = self.slack(x, expected)
            if not max(moved, slack / max(float(np.abs(expected).max()), _FLOOR)) <= _UNSTEADY:
                return None
            return replace(tolerance, slack=slack, rounding=moved, smallest=smallest).allowed(expected, x)
        limit = tolerance.allowed(expected)
        steady = all(bool((self._factor * np.abs(moved - expected) <= limit).all()) for moved in self._results(x))
        return limit if steady else None

    def relative(self, x: Array, expected: Array) -> float:
        """How far rounding alone can move the result in half precision, relative to the larger of |x| and |y|.

        0 for other types, and where the shapes differ.
        """
        if not self._half or x.shape != expected.shape:
            return 0.0
        return self._factor * (found + self._unit) if np.isfinite(found := self._moved(x, expected)) else 0.0

    def rounding(self, x: Array, expected: Array) -> tuple[float, float]:
        """The same in float32, with what onnxruntime's own approximations add; and what smaller |x| and |y| count as
        for it.
        """
        if self._dtype != "float32" or x.shape != expected.shape or not np.isfinite(found := self._moved(x, expected)):
            return 0.0, 0.0
        return _RELATIVE_FACTOR * found, _smallest(_sizes(x, expected))

    def _moved(self, x: Array, expected: Array) -> float:
        """How far the results move, relative to the larger of |x| and |y|; not finite where they are not."""
        size = _sizes(x, expected)
        size = np.maximum(size, _smallest(size))
        with np.errstate(divide="ignore", invalid="ignore"):
            return max(float((np.abs(moved - expected) / size).max(initial=0.0)) for moved in self._results(x))

    def _results(self, x: Array) -> Iterator[Array]:
        """What the module gives when all that is computed is rounded anew, in one way after another."""
        import torch

        for seed, module in enumerate(self._perturbed_modules):
            noise = np.random.default_rng([seed, 31]).uniform(-self._unit, self._unit, x.shape)
            with torch.inference_mode(), perturbed(self._unit, seed, self._approximated):
                yield module(torch.from_numpy(x.astype(np.float64) * (1 + noise))).numpy()

    @cached_property
    def _perturbed_modules(self) -> list[torch.nn.Module]:
        """The module with perturbed weights, once for each draw."""
        import torch

        modules = [copy.deepcopy(self._module) for _ in range(_DRAWS)]
        for seed, module in enumerate(modules):
            rng = np.random.default_rng([seed, 13])
            with torch.no_grad():
                for parameter in module.parameters():
                    noise = rng.uniform(-self._unit, self._unit, tuple(parameter.shape))
                    parameter.mul_(1 + torch.from_numpy(np.asarray(noise)))
        return modules


def _sizes(x: Array, expected: Array) -> Array:
    """The larger of |x| and |y|."""
    return np.maximum(np.abs(x.astype(np.float64)), np.abs(expected))


def _smallest(sizes: Array) -> float:
    """The size that smaller ones count as."""
    return _FLOOR * float(sizes.max(initial=0.0))
