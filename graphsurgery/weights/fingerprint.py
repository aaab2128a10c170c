"""Fingerprint: what the weights of one module may be in an export, as sketches.

A checkpoint has a convolution and its BatchNorm apart, often in float16; most exports have the two as one, in float32.
So a layer has several forms: its weights as they are, and with each BatchNorm beside it folded into them. An exported
layer is the trained one if it agrees with one of these forms to what float16 rounds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np

from ..feature_map import Array
from ..modelfile import limits
from .sketch import Sketch

KINDS = ("layer", "stacked", "norm", "parameter")
STACKED = "in_proj_weight"
"""of torch's MultiheadAttention: the weights of three layers in one"""
BIASES = {"weight": "bias", STACKED: "in_proj_bias"}
"""weight of a layer -> its bias"""
WEIGHTS = {"layer": "weight", "stacked": STACKED}
"""kind of a layer -> its weight"""
_NORM = ("running_mean", "running_var")
_EPSILON = 1e-5
_SMALLEST = 2.0**-14
"""the smallest normal number of float16: below it, rounding is no share of a value any more"""
_LEVELS, _MOST_NORMS, _WINDOW = 3, 6, 64
"""how many modules up from a layer, and from there down, its BatchNorm is looked for; how many of the same size are
tried; and among how many before and behind the layer these are chosen"""


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
    """``"layer"``: ``weight`` and ``bias`` as they are, or folded; ``"stacked"``: those of three layers in one;
    ``"norm"``: scale and shift of a BatchNorm; ``"parameter"``: a tensor of any other name, a learned position say
    """
    shape: tuple[int, ...]
    """of the weight, without sizes of 1 at its end"""
    forms: tuple[Form, ...]

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
        sizes = all(type(size) is int and 0 <= size <= limits.ELEMENTS for size in shape)
        if kind not in KINDS or not forms or not sizes or prod(shape) > limits.ELEMENTS:
            raise ValueError("no fingerprint")
        if not all(norm is None or isinstance(norm, str) for _, _, norm in forms):
            raise ValueError("no path of a BatchNorm")
        made = (Form(Sketch.from_json(w), None if b is None else Sketch.from_json(b), n) for w, b, n in forms)
        return cls(kind, tuple(shape), tuple(made))

    @property
    def biased(self) -> bool:
        """Whether it has a bias in some form."""
        return any(form.bias is not None for form in self.forms)

    @property
    def is_finite(self) -> bool:
        """Whether all of it is numbers."""
        return all(form.weight.is_finite and (form.bias is None or form.bias.is_finite) for form in self.forms)

    def nearest(self, weight: Array, bias: Array | None, *, unbiased: bool = False) -> tuple[float, str | None]:
        """How far weight and bias in a file are away from the nearest form, as a share of their length, and the path
        of the BatchNorm folded in it. ``unbiased``: the file's layer is known to have no bias, where None is given.
        """
        if weight.shape == self.shape[::-1] != self.shape and weight.ndim == 2:
            weight = weight.T  # of a Gemm that multiplies by it as it stands
        if squeezed(weight) != self.shape and np.asarray(weight).size != self.elements:
            return float("inf"), None
        sketch, least = Sketch.of(weight), _SMALLEST * sqrt(self.elements)
        shift = Sketch.of(bias) if bias is not None else Sketch.zero() if unbiased else None
        least_shift = _SMALLEST * sqrt(bias.size if bias is not None else prod(self.shape[:1]))
        found = [
            max(
                form.weight.distance(sketch, least),
                (form.bias or Sketch.zero()).distance(shift, least_shift) if shift else 0.0,
            )
            for form in self.forms
        ]
        best = min(range(len(found)), key=found.__getitem__)
        return found[best], self.forms[best].norm


def fingerprints(arrays: Mapping[str, Array], epsilons: Mapping[str, float]) -> dict[str, Fingerprint]:
    """Those of the modules of a ``state_dict``, by path, in its order; and by key those of its tensors that are no
    weight or bias of a layer. ``epsilons``: path of a BatchNorm -> its epsilon.
    """
    norms = {path: norm(arrays, path, epsilons) for path in norm_paths(arrays)}
    places = _Places(norms)
    found: dict[str, Fingerprint] = {}
    for key, values in arrays.items():
        path, _, part = key.rpartition(".")
        if path in norms:
            if path not in found:
                scale, shift, terms = norms[path]
                places.passed += 1
                found[path] = Fingerprint("norm", scale.shape, (Form(Sketch.of(scale), Sketch.of(shift, terms)),))
        elif not np.asarray(values).size:
            continue
        elif part in BIASES:
            bias, kind = arrays.get(joined(path, BIASES[part])), "stacked" if part == STACKED else "layer"
            found[path] = Fingerprint(kind, squeezed(values), tuple(_forms(path, values, bias, norms, places)))
        elif values.dtype.kind not in "iub" and not any(
            part == bias and joined(path, weight) in arrays for weight, bias in BIASES.items()
        ):
            found[key] = Fingerprint("parameter", squeezed(values), (Form(Sketch.of(values), None),))
    return found


def norm_paths(arrays: Mapping[str, Array]) -> list[str]:
    """The paths of BatchNorms, in order."""
    paths = dict.fromkeys(key.rpartition(".")[0] for key in arrays if key.endswith(_NORM))
    return [path for path in paths if _is_norm([arrays.get(joined(path, part)) for part in (*_NORM, "weight", "bias")])]


def _is_norm(parts: list[Array | None]) -> bool:
    """Whether these are mean, variance, weight and bias of the same channels; the last two are optional."""
    shapes = {each.shape for each in parts if each is not None}
    return parts[0] is not None and parts[1] is not None and len(shapes) == 1 and len(shapes.pop()) == 1


def norm(arrays: Mapping[str, Array], path: str, epsilons: Mapping[str, float]) -> tuple[Array, Array, float]:
    """Scale and shift of a BatchNorm in evaluation, and the length of the terms that the shift is the sum of."""
    mean, variance = (_wide(arrays[joined(path, part)]) for part in _NORM)
    weight, bias = (arrays.get(joined(path, part)) for part in ("weight", "bias"))
    with np.errstate(all="ignore"):
        scale = np.where(np.isfinite(variance), 1.0 / np.sqrt(variance + epsilons.get(path, _EPSILON)), np.nan)
        scale = scale if weight is None else scale * _wide(weight)
        plus = np.zeros_like(mean) if bias is None else _wide(bias)
        return scale, plus - mean * scale, _length(plus, mean * scale)


def _forms(
    path: str,
    values: Array,
    bias: Array | None,
    norms: Mapping[str, tuple[Array, Array, float]],
    places: _Places,
) -> Iterator[Form]:
    """A layer as it is, and with each BatchNorm folded that may be its own."""
    yield Form(Sketch.of(values), None if bias is None else Sketch.of(bias))
    weight = np.asarray(values)
    for beside in places.nearest(path, weight.shape[:2]):
        scale, shift, terms = norms[beside]
        for axis in range(min(weight.ndim, 2)) if weight.ndim > 1 else ():
            if weight.shape[axis] == scale.size:  # the second axis: of a transposed convolution
                along = [1] * weight.ndim
                along[axis] = scale.size
                moved = scale * _wide(bias) if bias is not None and bias.size == scale.size else np.zeros(1)
                folded = Sketch.of(shift + moved, float(np.hypot(terms, _length(moved))))
                yield Form(Sketch.of(_wide(values) * scale.reshape(along)), folded, beside)


class _Places:
    """Where the BatchNorms of a model stand, to find those that may belong to a layer."""

    def __init__(self, norms: Mapping[str, tuple[Array, Array, float]]) -> None:
        self.passed = 0
        """how many of them come before the layer that is looked at, in the order of the model"""
        self._sizes = [each[0].size for each in norms.values()]
        self._paths = list(norms)
        self._around: dict[str, list[int]] = {}
        """path of a module -> the BatchNorms in it"""
        for place, path in enumerate(norms):
            for outer in _outwards(path):
                self._around.setdefault(outer, []).append(place)

    def nearest(self, path: str, sizes: tuple[int, ...]) -> list[str]:
        """The BatchNorms of one of some sizes that are nearest to a layer: children of the same module, or of one
        around it; and those further inside, where a norm is wrapped. First those whose path is most like the layer's,
        as of several branches, then those behind it.
        """
        direct, inner = list[int](), list[int]()
        for outer in _outwards(path):
            near = self._around.get(outer, [])
            middle = bisect_left(near, self.passed)
            fitting = [each for each in near[max(middle - _WINDOW, 0) : middle + _WINDOW] if self._sizes[each] in sizes]
            inner = inner or fitting
            direct = [each for each in fitting if self._paths[each].rpartition(".")[0] == outer]
            if direct:
                break

        def farness(place: int) -> tuple[int, bool, int]:
            pairs = zip(path.split("."), self._paths[place].split("."), strict=False)
            return -sum(one == other for one, other in pairs), place < self.passed, abs(place - self.passed)

        return [self._paths[each] for each in sorted({*direct, *inner}, key=farness)[:_MOST_NORMS]]


def _outwards(path: str) -> Iterator[str]:
    """The modules around one, from the inside out; "" is the model."""
    for _ in range(_LEVELS):
        path, dot, _ = path.rpartition(".")
        yield path
        if not dot:
            return


def joined(path: str, part: str) -> str:
    """A key in a ``state_dict``."""
    return f"{path}.{part}" if path else part


def squeezed(values: Array) -> tuple[int, ...]:
    """The shape without sizes of 1 at its end."""
    shape = np.asarray(values).shape
    return shape[: max((axis + 1 for axis, size in enumerate(shape) if size != 1), default=0)]


def _wide(values: Array) -> Array:
    return np.asarray(values).astype(np.float64)


def _length(*parts: Array) -> float:
    return float(np.sqrt(sum(float(np.sum(part * part)) for part in parts)))
