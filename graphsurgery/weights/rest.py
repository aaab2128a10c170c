"""Rest: the model around trained blocks as a sketch of the weights of each module, by which an export of it is known.

A checkpoint has a convolution and its BatchNorm apart, often in float16; most exports have the two as one, in float32.
So a layer has several forms: its weights as they are, and with each BatchNorm beside it folded into them. An exported
layer is the trained one if it agrees with one of these forms to what float16 rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import ml_dtypes
import numpy as np

from ..feature_map import Array
from .checkpoint import without_wrapper
from .sketch import Sketch

ROUNDINGS = 4
"""How far the weights of a layer may be away, as a share of their length, in roundings to the type of the checkpoint,
of float16 at the least. The worst case has three and a half, all to one side: weight, scale and half of the variance of
a BatchNorm in the checkpoint, and the folded weight in a half export. Exports of the trained model itself are away by
1.3 at the most, in the mean by 0.7; docs/training.md says what training moves."""
FLOAT16 = 2.0**-11
LEAST = 0.25
"""Share of the weights that has to be compared before a model is taken for the trained one."""
_NORM = ("running_mean", "running_var")
_WEIGHTS = {"layer": "weight", "attention": "in_proj_weight"}
"""kind of a module -> the parameter that it is known by; that of an attention is torch's MultiheadAttention's"""
_EPSILON = 1e-5
_LEVELS, _MOST_NORMS = 3, 6
"""how far up from a layer its BatchNorm is looked for, and how many of the same size are tried"""


@dataclass(frozen=True)
class Form:
    """What the weights and the bias of a module may be in a file."""

    weight: Sketch
    bias: Sketch | None
    norm: str | None = None
    """path of the BatchNorm that is folded into them"""


@dataclass(frozen=True)
class Fingerprint:
    """Of one module."""

    kind: str
    """``"layer"``: ``weight`` and ``bias`` as they are, or folded; ``"attention"``: the weights of three layers in one;
    ``"norm"``: scale and shift of a BatchNorm"""
    shape: tuple[int, ...]
    """of the weight, without sizes of 1 at its end"""
    forms: tuple[Form, ...]

    def key(self, path: str) -> str:
        """Of its weight in the ``state_dict``, for a module with that path; "" for a BatchNorm, which is known by all
        that it has.
        """
        return _joined(path, _WEIGHTS[self.kind]) if self.kind in _WEIGHTS else ""

    @property
    def elements(self) -> int:
        """How many weights it stands for."""
        return prod(self.shape)

    def to_json(self) -> list[Any]:
        """Plain data, from which :meth:`from_json` makes it again."""
        forms = [[form.weight.to_json(), form.bias.to_json() if form.bias else None, form.norm] for form in self.forms]
        return [self.kind, list(self.shape), forms]

    @classmethod
    def from_json(cls, plain: Any) -> Fingerprint:
        """From such data. ValueError or TypeError if it is none."""
        kind, shape, forms = plain
        if kind not in (*_WEIGHTS, "norm") or not all(isinstance(size, int) for size in shape):
            raise ValueError("no fingerprint")
        made = (Form(Sketch.from_json(w), None if b is None else Sketch.from_json(b), n) for w, b, n in forms)
        return cls(kind, tuple(shape), tuple(made))


@dataclass(frozen=True)
class Comparison:
    """What came of holding an exported model against the rest."""

    modules: int
    """of the trained model that have weights"""
    compared: int
    """of these, BatchNorms that are folded into a layer among them"""
    distances: Mapping[str, float]
    """module that was compared -> how far its weights are away, as a share of their length; in the model's order"""
    share: float
    """of the weights that was compared"""
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
        starts = tuple(f"{path}." for path in blocks)
        own = {key: values for key, values in arrays.items() if not key.startswith(starts)} if starts else arrays
        norms = {path: _norm(own, path, epsilons) for path in _norms(own)}
        found: dict[str, Fingerprint] = {}
        for key, values in own.items():
            path, _, part = key.rpartition(".")
            if path in norms and path not in found:
                scale, shift, terms = norms[path]
                form = Form(Sketch.of(scale), Sketch.of(shift, terms))
                found[path] = Fingerprint("norm", scale.shape, (form,))
            elif path not in norms and part in _WEIGHTS.values() and np.asarray(values).size:
                kind = next(each for each, name in _WEIGHTS.items() if name == part)
                bias = own.get(_joined(path, "bias")) if kind == "layer" else None
                found[path] = Fingerprint(kind, _squeezed(values), tuple(_forms(path, values, bias, norms)))
        rounding = max((_rounding(each.dtype) for each in own.values() if each.ndim), default=FLOAT16)
        return cls({path: each for path, each in found.items() if all(map(_is_finite, each.forms))}, rounding)

    def compare(
        self, arrays: Mapping[str, Array], epsilons: Mapping[str, float], rounding: float = FLOAT16
    ) -> Comparison:
        """Hold an exported model against it: its weights by key of the ``state_dict``, as far as it has them under such
        names, the epsilons of its BatchNorms, and ``rounding`` as it is for its own types.
        """
        norms, seen = set(_norms(arrays)), set[str]()
        tolerance = ROUNDINGS * max(self.rounding, rounding)
        distances: dict[str, float] = {}
        for path, trained in self.modules.items():
            folded = None
            if trained.kind == "norm" and path in norms:
                scale, shift, _ = _norm(arrays, path, epsilons)
                distance, _ = _nearest(trained, scale, shift)
            elif (key := trained.key(path)) in arrays:
                bias = arrays.get(_joined(path, "bias")) if trained.kind == "layer" else None
                distance, folded = _nearest(trained, arrays[key], bias)
                if distance > tolerance and self._may_be_merged(path, arrays, distance):
                    continue
            else:
                continue
            distances[path] = distance
            seen |= {path} | ({folded} if folded is not None and folded in self.modules else set())
        elements = {path: each.elements for path, each in self.modules.items()}
        share = sum(elements[path] for path in seen) / max(sum(elements.values()), 1)
        return Comparison(len(elements), len(seen), distances, share, tolerance)

    def without_wrapper(self) -> Rest:
        """The same without what DataParallel and torch.compile put before every path."""
        return replace(self, modules={without_wrapper(path): each for path, each in self.modules.items()})

    def _may_be_merged(self, path: str, arrays: Mapping[str, Array], distance: float) -> bool:
        """Whether what a file has under a layer's name may be more than that layer: branches beside it, of as many
        channels, that the file lacks; or other products than the three of an attention.
        """
        if self.modules[path].kind == "attention" and distance == float("inf"):
            return True
        outer, size = path.rpartition(".")[0], self.modules[path].shape[:1]
        return any(
            other.rpartition(".")[0] == outer and each.kind == "layer" and each.shape[:1] == size
            for other, each in self.modules.items()
            if other != path and each.key(other) not in arrays
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, from which :meth:`from_json` makes it again."""
        return {"rounding": self.rounding, "modules": [[path, *each.to_json()] for path, each in self.modules.items()]}

    @classmethod
    def from_json(cls, plain: Any) -> Rest:
        """From such data. ValueError, TypeError or KeyError if it is none."""
        modules = {str(path): Fingerprint.from_json(each) for path, *each in plain["modules"]}
        return cls(modules, float(plain["rounding"]))


def _norms(arrays: Mapping[str, Array]) -> list[str]:
    """The paths of BatchNorms, in order."""
    paths = dict.fromkeys(key.rpartition(".")[0] for key in arrays if key.endswith(_NORM))
    return [path for path in paths if all(_joined(path, part) in arrays for part in _NORM)]


def _norm(arrays: Mapping[str, Array], path: str, epsilons: Mapping[str, float]) -> tuple[Array, Array, float]:
    """Scale and shift of a BatchNorm in evaluation, and the length of the terms that the shift is the sum of."""
    mean, variance = (_wide(arrays[_joined(path, part)]) for part in _NORM)
    weight, bias = (arrays.get(_joined(path, part)) for part in ("weight", "bias"))
    with np.errstate(all="ignore"):
        scale = np.where(np.isfinite(variance), 1.0 / np.sqrt(variance + epsilons.get(path, _EPSILON)), np.nan)
        scale = scale if weight is None else scale * _wide(weight)
        plus = np.zeros_like(mean) if bias is None else _wide(bias)
        return scale, plus - mean * scale, _length(plus, mean * scale)


def _forms(
    path: str, values: Array, bias: Array | None, norms: Mapping[str, tuple[Array, Array, float]]
) -> Iterator[Form]:
    """A layer as it is, and with each BatchNorm folded that may be its own."""
    yield Form(Sketch.of(values), None if bias is None else Sketch.of(bias))
    weight = np.asarray(values)
    for norm in _beside(path, weight.shape[:2], norms):
        scale, shift, terms = norms[norm]
        for axis in range(min(weight.ndim, 2)) if weight.ndim > 1 else ():
            if weight.shape[axis] == scale.size:  # the second axis: of a transposed convolution
                along = [1] * weight.ndim
                along[axis] = scale.size
                moved = scale * _wide(bias) if bias is not None and bias.size == scale.size else np.zeros(1)
                folded = Sketch.of(shift + moved, float(np.hypot(terms, _length(moved))))
                yield Form(Sketch.of(_wide(values) * scale.reshape(along)), folded, norm)


def _beside(path: str, sizes: tuple[int, ...], norms: Mapping[str, tuple[Array, Array, float]]) -> list[str]:
    """The BatchNorms of one of some sizes that are nearest to a layer: of the same module, or of one around it."""
    outer = path
    for _ in range(_LEVELS):
        outer, dot, _ = outer.rpartition(".")
        near = [name for name, each in norms.items() if name.rpartition(".")[0] == outer and each[0].size in sizes]
        if near or not dot:
            return near[:_MOST_NORMS]
    return []


def _nearest(trained: Fingerprint, weight: Array, bias: Array | None) -> tuple[float, str | None]:
    """How far weight and bias in a file are away from the nearest form of a module, and the BatchNorm folded in it."""
    if _squeezed(weight) != trained.shape and np.asarray(weight).size != trained.elements:
        return float("inf"), None
    sketch, shift = Sketch.of(weight), None if bias is None else Sketch.of(bias)
    found = [
        max(form.weight.distance(sketch), form.bias.distance(shift) if form.bias and shift else 0.0)
        for form in trained.forms
    ]
    best = min(range(len(found)), key=found.__getitem__)
    return found[best], trained.forms[best].norm


def _rounding(dtype: np.dtype[Any]) -> float:
    """Of an element type; :data:`FLOAT16` for finer ones, and for integers."""
    if dtype.kind in "iub":
        return FLOAT16
    return max(FLOAT16, float(ml_dtypes.finfo(dtype).eps) / 2)  # type: ignore[no-untyped-call]


def _is_finite(form: Form) -> bool:
    return form.weight.is_finite and (form.bias is None or form.bias.is_finite)


def _joined(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part


def _squeezed(values: Array) -> tuple[int, ...]:
    shape = np.asarray(values).shape
    return shape[: max((axis + 1 for axis, size in enumerate(shape) if size != 1), default=0)]


def _wide(values: Array) -> Array:
    return np.asarray(values).astype(np.float64)


def _length(*parts: Array) -> float:
    return float(np.sqrt(sum(float(np.sum(part * part)) for part in parts)))
