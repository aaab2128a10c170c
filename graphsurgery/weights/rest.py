"""Rest: the model around trained blocks as a sketch of the weights of each module, by which an export of it is known.

See fingerprint.py for what is kept of a module. Layers are found by their names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from ..feature_map import Array
from .checkpoint import is_numeric, owner, without_wrapper
from .fingerprint import BIASES, WEIGHTS, Fingerprint, fingerprints, joined, norm, norm_paths

ROUNDINGS = 4
"""How far the weights of a layer may be away, as a share of their length, in roundings to the type of the checkpoint,
of float16 at the least. The worst case has three and a half, all to one side: weight, scale and half of the variance of
a BatchNorm in the checkpoint, and the folded weight in a half export. Exports of the trained model itself are away by
1.3 at the most, in the mean by 0.7; docs/training.md says what training moves."""
FLOAT16 = 2.0**-11
COARSEST = 2.0**-3
"""rounding of float8 with two bits behind the point, beyond which nothing would tell two models apart"""
LEAST = 0.25
"""Share of the weights that has to be compared before a model is taken for the trained one."""


@dataclass(frozen=True)
class Comparison:
    """What came of holding an exported model against the rest."""

    modules: int
    """of the trained model that have weights, and parameters that are no weight or bias of a layer"""
    compared: int
    """of these, BatchNorms that are folded into a layer among them"""
    distances: Mapping[str, float]
    """module that was compared -> how far its weights are away, as a share of their length; in the model's order"""
    share: float
    """of the weights of layers and BatchNorms that was compared"""
    tolerance: float
    """the largest distance that rounding explains"""

    @property
    def differing(self) -> list[str]:
        """The modules whose weights are not the trained ones."""
        return [path for path, distance in self.distances.items() if distance > self.tolerance]

    @property
    def worst(self) -> float:
        """The largest distance."""
        return max(self.distances.values(), default=0.0)


@dataclass(frozen=True)
class Rest:
    """The modules around the blocks, by path, in the order of the model."""

    modules: Mapping[str, Fingerprint]
    rounding: float = FLOAT16
    """of the coarsest type among the weights: half of the step at 1, as a share"""

    @classmethod
    def of(cls, arrays: Mapping[str, Array], epsilons: Mapping[str, float], blocks: Collection[str] = ()) -> Rest:
        """From the ``state_dict`` of a model.

        ``epsilons``: path of a BatchNorm -> its epsilon; ``blocks``: paths of attached blocks, which are left out.
        Modules with weights that are not finite are left out as well: a float16 is infinity where a float32 is not.
        """
        attached = set(blocks)
        own = {key: values for key, values in arrays.items() if is_numeric(values) and not owner(key, attached)}
        found = fingerprints(own, epsilons)
        rounding = max((_rounding(each.dtype) for each in own.values() if each.ndim), default=FLOAT16)
        return cls({path: each for path, each in found.items() if each.is_finite}, rounding)

    def compare(
        self,
        arrays: Mapping[str, Array],
        epsilons: Mapping[str, float],
        rounding: float = FLOAT16,
        *,
        unbiased: Collection[str] = (),
        spare: Collection[str] = (),
    ) -> Comparison:
        """Hold an exported model against it: its weights by key of the ``state_dict``, as far as it has them under such
        names, the epsilons of its BatchNorms, and ``rounding`` as it is for its own types. ``unbiased``: layers known
        to have no bias there; ``spare``: keys of biases that may be another's.
        """
        # a node has all four; where scale or shift have lost their names, nothing can be said
        norms = {path for path in norm_paths(arrays) if {joined(path, "weight"), joined(path, "bias")} <= arrays.keys()}
        seen = set[str]()
        tolerance = ROUNDINGS * max(self.rounding, rounding)
        distances: dict[str, float] = {}
        for path, trained in self.modules.items():
            folded = None
            if trained.kind == "norm" and path in norms:
                scale, shift, _ = norm(arrays, path, epsilons)
                distance, _ = trained.nearest(scale, shift)
            elif trained.kind in WEIGHTS and _has(arrays, path, trained):
                part = WEIGHTS[trained.kind]
                key = joined(path, BIASES[part])
                bias = arrays.get(key) if key not in spare or trained.biased else None
                distance, folded = trained.nearest(arrays[joined(path, part)], bias, unbiased=path in unbiased)
                others = trained.kind == "stacked" and distance == float("inf")  # products than the three
                if distance > tolerance and (others or self._may_be_merged(path, arrays)):
                    continue
            elif trained.kind == "parameter" and path in arrays:
                distance, _ = trained.nearest(arrays[path], None)
            else:
                continue
            distances[path] = distance
            seen |= {path} | ({folded} if folded is not None and folded in self.modules else set())
        elements = {path: each.elements for path, each in self.modules.items() if each.kind != "parameter"}
        share = sum(elements.get(path, 0) for path in seen) / max(sum(elements.values()), 1)
        return Comparison(len(self.modules), len(seen), distances, share, tolerance)

    def without_wrapper(self) -> Rest:
        """The same without what DataParallel and torch.compile put before every path."""
        return replace(self, modules={without_wrapper(path): each for path, each in self.modules.items()})

    def _may_be_merged(self, path: str, arrays: Mapping[str, Array]) -> bool:
        """Whether what a file has under a layer's name may be more than that layer: the branches beside it, of as many
        channels, where the file has none of them.
        """
        outer, size = path.rpartition(".")[0], self.modules[path].shape[:1]
        beside = {
            other: each
            for other, each in self.modules.items()
            if other != path and other.rpartition(".")[0] == outer and each.kind in WEIGHTS
        }
        alike = any(each.shape[:1] == size for each in beside.values())
        return alike and not any(_has(arrays, other, each) for other, each in beside.items())

    def to_json(self) -> dict[str, Any]:
        """Plain data, from which :meth:`from_json` makes it again."""
        return {"rounding": self.rounding, "modules": [[path, *each.to_json()] for path, each in self.modules.items()]}

    @classmethod
    def from_json(cls, plain: Any) -> Rest:
        """From such data. ValueError, TypeError or KeyError if it is none."""
        modules = {str(path): Fingerprint.from_json(each) for path, *each in plain["modules"]}
        rounding = plain["rounding"]
        if type(rounding) is not float or not 0 < rounding <= COARSEST:
            raise ValueError("no rounding")
        return cls(modules, rounding)


def _has(arrays: Mapping[str, Array], path: str, trained: Fingerprint) -> bool:
    """Whether a file has the weight of a layer under its name."""
    return joined(path, WEIGHTS[trained.kind]) in arrays


def _rounding(dtype: np.dtype[Any]) -> float:
    """Of an element type; :data:`FLOAT16` for finer ones, and for integers."""
    if dtype.kind in "iub":
        return FLOAT16
    return max(FLOAT16, float(ml_dtypes.finfo(dtype).eps) / 2)  # type: ignore[no-untyped-call]
