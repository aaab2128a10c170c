"""Shuffle Attention (SA-Net): half of each group gated by its means, half by its normalised self, then a shuffle.

Zhang and Yang, "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks", ICASSP 2021, arXiv:2102.00240.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes

from . import norms, shuffling
from .catalogue import CatalogueBlock

_EPS = 1e-5
_HALVES = "halves"
_PARTS = ("cweight", "cbias", "sweight", "sbias")


class ShuffleAttention(CatalogueBlock):
    """The published code folds groups into the batch and splits each in two. Here every channel has the gate
    sigmoid(S * normalised x + U * mean of x + T), with S = 0 in the first half of a group and U = 0 in the second.
    """

    name = "shuffle"
    title = "Shuffle Attention (SA-Net)"
    demand = 21
    paper = "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks, ICASSP 2021, arXiv:2102.00240"
    reference = "wofmanaf/SA-Net, models/sa_resnet.py, sa_layer"
    formula = (
        "per group, halves x0 and x1: x0 * sigmoid(cweight * mean + cbias), x1 * sigmoid(sweight * GN(x1) + sbias); "
        "then out[2j + i] = in[i * C/2 + j]"
    )
    untrained = "scales its input to 0.73 and reorders the channels"
    settings = (
        Setting("groups", int, 64, "groups; the common YOLO port has 8 and ignores its reduction", minimum=1),
        Setting("half", int, None, "channels of half a group; overrules the groups", minimum=1),
    )

    def _half(self, feature: FeatureMap) -> int:
        return int(self.values["half"] or feature.channels // (2 * self.integer("groups")))

    def check(self, feature: FeatureMap) -> None:
        half, groups = self.values["half"], self.values["groups"]
        if feature.channels % (2 * int(half or groups or 1)):
            parts = f"halves of {half} channels" if half else f"{groups} groups of two halves"
            raise BlockError(f"{feature.label} has {feature.channels} channels, which do not make {parts}")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        half = self._half(feature)
        return dict.fromkeys(_PARTS, (1, half, 1, 1)) | layer_shapes({"gn": (half,)})

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        ones = ("cbias", "sbias", "gn.weight")
        return {key: np.full(shape, float(key in ones), np.float32) for key, shape in self.parameters(feature).items()}

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        given = shapes.get("cweight", ())
        return {"half": max(given)} if given else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """How the second halves are normalised, and how the channels are shuffled, or also parted before (halves)."""
        ends = (*shuffling.lowerings(feature), _HALVES)
        return [f"{a}+{b}" for a in norms.of_maps(feature, opset) for b in ends]

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        # two copies more, but half the map to normalise; TensorRT fuses nothing with a selection of channels
        normal, ends = (list(dict.fromkeys(part)) for part in zip(*(f.split("+") for f in lowerings), strict=True))
        return f"{norms.choose(t, normal)}+{_HALVES if t.target == 'onnxruntime' else ends[0]}"

    def emit(self, t: Template, lowering: str) -> Variable:
        norm, shuffled = lowering.split("+")
        if shuffled == _HALVES:
            return self._by_halves(t, norm)
        scale, from_mean, shift = self._affine(t)
        mean = t.mean_hw(t.x)
        moved = t.mul(mean, t.constant(from_mean, "from_mean"))
        if norm == norms.INSTANCE_NORM:
            normal = norms.instance_norm(t, t.x, scale.reshape(-1), shift.reshape(-1), _EPS, norm)
            logits = t.add(normal, moved)
        else:
            centred, deviation = norms.statistics(t, t.x, _EPS, mean)
            moved = t.add(moved, t.constant(shift, "shift"))
            logits = t.add(t.mul(centred, t.div(t.constant(scale, "scale"), deviation)), moved)
        return shuffling.shuffle(t, t.mul(t.x, t.sigmoid(logits)), 2, shuffled)

    def _by_halves(self, t: Template, norm: str) -> Variable:
        """First and second halves of all groups apart, each with its gate; then both in the order of the shuffle.

        With an even number of groups that order has as long runs of first halves as of second ones, in turn.
        """
        channels, half = t.feature.channels, self._half(t.feature)
        order = np.arange(channels).reshape(2, -1).T.reshape(-1)
        kinds = order // half % 2
        first, second = (order[kinds == kind] for kind in (0, 1))
        scale, from_mean, shift = self._affine(t)
        x0, x1 = (t.op("Gather", t.x, t.integers(part.tolist(), "half"), axis=1) for part in (first, second))
        scaled = t.mul(t.mean_hw(x0), t.constant(from_mean[:, first], "from_mean"))
        y0 = t.mul(x0, t.sigmoid(t.add(scaled, t.constant(shift[:, first], "from_bias"))))
        normal = norms.instance_norm(t, x1, scale[0, second, 0, 0], shift[0, second, 0, 0], _EPS, norm)
        y1 = t.mul(x1, t.sigmoid(normal))
        count, rest = divmod(channels, 4 * half)
        if t.feature.static and not rest:
            runs = (t.op("Reshape", y, t.integers([0, count, 1, 2 * half * t.feature.area], "runs")) for y in (y0, y1))
            y = t.op("Concat", *runs, axis=2)
            return t.op("Reshape", y, t.integers([0, channels, *t.feature.size], "shape"))
        place = np.argsort(np.concatenate([first, second]))
        return t.op("Gather", t.op("Concat", y0, y1, axis=1), t.integers(place[order].tolist(), "order"), axis=1)

    def _affine(self, t: Template) -> tuple[Array, Array, Array]:
        """S, U and T, [1, C, 1, 1] each."""
        cweight, cbias, sweight, sbias = (t.values(part).reshape(-1) for part in _PARTS)
        zero, groups = np.zeros_like(cweight), t.feature.channels // (2 * cweight.size)
        halves = (
            (zero, sweight * t.values("gn.weight")),
            (cweight, zero),
            (cbias, sweight * t.values("gn.bias") + sbias),
        )
        scale, from_mean, shift = (np.tile(np.concatenate(pair), groups).reshape(1, -1, 1, 1) for pair in halves)
        return scale, from_mean, shift

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"groups": feature.channels // (2 * self._half(feature))}
