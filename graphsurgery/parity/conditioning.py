"""How far a module's result moves when every intermediate result is rounded anew.

Some blocks multiply rounding errors. A softmax over products of queries and keys does: a logit grows with the square of
the input, its error with it, and the result moves by that error, relatively. So does a gate without a bound, where the
terms of a sum cancel, and a normalisation of a map that hardly varies, where the error of the mean is divided by a tiny
deviation. No arithmetic of the site's type can agree better with float64 than the module does with itself when the last
bits of what it is given, and of what it computes on the way, change. Modules that are so say it with a class attribute
``sharp = True``; for them that movement is measured, input by input, and permitted on top of the tolerance. The method
is that of stochastic arithmetic (Vignes, "A stochastic arithmetic for reliable scientific computation", 1993).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .perturbation import perturbed

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

UNITS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 2.0**-53}
"""Largest relative error of rounding to the type."""

_FACTOR = {"float32": 24.0, "float64": 24.0, "float16": 4.0, "bfloat16": 4.0}
"""The operators in between round as well. Sums of half-precision numbers are made in float32."""
_DRAWS = 2


class Conditioning:
    """Measures one module (float64, evaluation mode) for one element type of the site."""

    def __init__(self, module: torch.nn.Module, dtype: str) -> None:
        self._unit, self._factor = UNITS[dtype], _FACTOR[dtype]
        self._moved: list[torch.nn.Module] = []
        if any(getattr(part, "sharp", False) for part in module.modules()):
            self._moved = [self._rounded_anew(module, seed) for seed in range(_DRAWS)]

    def slack(self, x: Array, expected: Array) -> float:
        """What is permitted on top of the tolerance for the input ``x``, of which the module made ``expected``.

        In the unit of the output; 0 for a module that is not sharp.
        """
        import torch

        if not self._moved:
            return 0.0
        found = 0.0
        for seed, module in enumerate(self._moved):
            noise = np.random.default_rng([seed, 31]).uniform(-self._unit, self._unit, x.shape)
            with torch.inference_mode(), perturbed(self._unit, seed):
                moved = module(torch.from_numpy(x.astype(np.float64) * (1 + noise))).numpy()
            found = max(found, float(np.abs(moved - expected).max(initial=0.0)))
        found += self._unit * float(np.abs(expected).max(initial=0.0))  # the result is rounded, too
        return self._factor * found if np.isfinite(found) else 0.0

    def _rounded_anew(self, module: torch.nn.Module, seed: int) -> torch.nn.Module:
        import torch

        rng = np.random.default_rng([seed, 13])
        moved = copy.deepcopy(module)
        with torch.no_grad():
            for parameter in moved.parameters():
                noise = rng.uniform(-self._unit, self._unit, tuple(parameter.shape))
                parameter.mul_(1 + torch.from_numpy(np.asarray(noise)))
        return moved
