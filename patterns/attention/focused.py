"""Focused linear attention: queries and keys whose direction is sharpened, and no matrix over all pairs of positions.

Han et al., "FLatten Transformer: Vision Transformer using Focused Linear Attention", ICCV 2023, arXiv:2308.00442.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes, torch_default

from .catalogue import CatalogueBlock
from .layers import linear, linear_rows
from .norms import SMALLEST, largest
from .transformer import into_windows, out_of_windows, reshape, transpose, without_separate
from .widths import require_divisor, require_odd, require_static

_SMALL = 1e-6
_HIGHEST = 8
_SUM, _LIFT = 2.0**14, 2.0**12
"""in float16: what sums over the positions come to at most, and what powers are multiplied by not to vanish"""
_LEAST_HALF = 2.0**-24
"""the smallest positive number of float16"""
_ENCODING = "positional_encoding"

_ABOVE_SUBNORMAL, _LIFTED_UP_TO = 64.0, 4
"""For CPUs, which take ten times as long for subnormal numbers: what directions are multiplied with before their powers
are taken and squared, and up to which power that stays far from the largest number."""


class FocusedLinearAttention(CatalogueBlock):
    """Directions and lengths of q and k are kept apart: the result of a query does not depend on its length, but for
    what is added to the mean, which is divided by it.
    """

    name = "focused"
    title = "Focused linear attention (FLatten)"
    demand = 26
    paper = "FLatten Transformer: Vision Transformer using Focused Linear Attention, ICCV 2023, arXiv:2308.00442"
    reference = "LeapLabTHU/FLatten-Transformer, models/flatten_swin.py and models/flatten_cswin.py"
    formula = (
        "y = proj(a + dwc(v)), a = q (k^T v / M) / (q mean k + 1e-6), [q, k, v] = qkv(x); q and k + position as "
        "f(z) = |z| z^p / |z^p|, z = (relu(.) + 1e-6) / softplus(scale); cswin: a + dwc(v) + get_v(v), no proj"
    )
    untrained = "a learned term in its place, of a quarter (cswin: half) of its scale: there is no shortcut"
    variants: ClassVar[dict[str, str]] = {
        "flatten": "FLatten-Swin's and FLatten-PVT's, with a projection; over the whole map or within windows",
        "cswin": "as collections of YOLO modules have it, after FLatten-CSwin: get_v beside dwc, no projection",
    }
    module_classes: ClassVar[dict[str, str]] = {"cswin": "FocusedCSwinAttention"}
    settings = (
        Setting("heads", int, 8, "heads, each of an equal part of the channels", minimum=1),
        Setting(
            "window", int, None, "side of a window; the whole map where not given", minimum=1, variants=("flatten",)
        ),
        Setting("factor", int, 3, "power p that sharpens queries and keys", minimum=1),
        Setting("kernel", int, 5, "side of the depthwise convolution", minimum=1),
        Setting("qkv_bias", bool, True, "whether q, k and v have biases", variants=("flatten",)),
    )

    @property
    def _layer(self) -> str:
        return "qkv" if self.variant == "flatten" else "conv_qkv"

    def _side(self, feature: FeatureMap) -> tuple[int, int]:
        """Height and width of what a position attends to."""
        window = self.integer("window")
        return (window, window) if window else feature.size

    def check(self, feature: FeatureMap) -> None:
        require_static(feature, "focused has an encoding for every position")
        require_divisor(feature, self.integer("heads"), "heads")
        require_odd(self, "kernel", self.integer("kernel"))
        if self.integer("factor") > _HIGHEST:
            what = f"focused has a factor of at most {_HIGHEST}: beyond, powers leave float32"
            raise BlockError(what, option="settings")
        if any(side % window for side, window in zip(feature.size, self._side(feature), strict=True)):
            raise BlockError(
                f"{feature.label} is {feature.height} x {feature.width}, which a window of {self.integer('window')} "
                "does not divide; without one, focused attends to the whole map",
                option="settings",
            )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, side = feature.channels, self.integer("kernel")
        tall, wide = self._side(feature)
        dwc = {"dwc": (channels // self.integer("heads"), 1, side, side)}
        if self.variant == "flatten":
            shapes = layer_shapes({"qkv": (3 * channels, channels)}, bias=self.flag("qkv_bias"))
            shapes |= layer_shapes({"proj": (channels, channels), **dwc})
        else:
            shapes = layer_shapes({"conv_qkv": (3 * channels, channels, 1, 1)}, bias=False)
            shapes |= layer_shapes({"get_v": (channels, 1, 3, 3), **dwc})
        return shapes | {"scale": (1, 1, channels), _ENCODING: (1, tall * wide, channels)}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        shapes = self.parameters(feature)
        zeros = {key: np.zeros(shapes.pop(key), np.float32) for key in ("scale", _ENCODING)}
        return torch_default(shapes, rng) | zeros

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        raise self.no_identity("has no shortcut and cannot leave its input as it is")

    def regrouped(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """With q, k and v joined: FLatten-PVT keeps q apart."""
        return without_separate(arrays, r"()(q|kv)\.(weight|bias)", ("q", "kv"), lambda match: f"qkv.{match[3]}")

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {}
        if len(shapes.get("dwc.weight", ())) == 4 and "scale" in shapes:
            width, _, kernel, _ = shapes["dwc.weight"]
            found |= {"heads": max(shapes["scale"][-1] // width, 1), "kernel": kernel}
        if self.variant == "flatten" and "qkv.weight" in shapes:
            found["qkv_bias"] = "qkv.bias" in shapes
        return found

    # ------------------------------------------------------------------ the template

    def emit(self, t: Template, lowering: str) -> Variable:
        channels, window = t.feature.channels, self.integer("window")
        z = into_windows(t, t.x, channels, window) if window else t.x
        rows = [range(start, start + channels) for start in range(0, 3 * channels, channels)]
        q, k, v = (linear_rows(t, z, self._layer, each, bias=self.flag("qkv_bias")) for each in rows)
        y = t.add(self._attended(t, q, k, v), self._near(t, v))
        if self.variant == "flatten":
            y = linear(t, y, "proj")
        return out_of_windows(t, y, channels, window) if window else y

    def _near(self, t: Template, v: Variable) -> Variable:
        """The depthwise convolutions of v as one."""
        channels, side = t.feature.channels, self.integer("kernel")
        heads = self.integer("heads")
        weight, bias = (np.concatenate([t.kept(f"dwc.{part}")] * heads) for part in ("weight", "bias"))
        if self.variant == "cswin":
            large = max(side, 3)
            weight, second = (_centred(kernel, large) for kernel in (weight, t.kept("get_v.weight")))
            weight, bias, side = weight + second, bias + t.values("get_v.bias"), large
        kernel, shift = t.constant(weight, "dwc.weight"), t.constant(bias, "dwc.bias")
        return t.conv(v, kernel, shift, pads=[side // 2] * 4, group=channels)

    def _attended(self, t: Template, q: Variable, k: Variable, v: Variable) -> Variable:
        """[N, C, h, w] each -> the same."""
        (tall, wide), heads, channels = self._side(t.feature), self.integer("heads"), t.feature.channels
        places, width = tall * wide, channels // heads
        with t.statistics():
            half = t.dtype == "float16"
            encoding = transpose(t, t.weight(_ENCODING, (1, tall, wide, channels)), (0, 3, 1, 2))
            queries, length = self._focused(t, q)
            eps = _SMALL if self.variant == "flatten" else _SMALL / places
            small: gs.Tensor = t.scalar(eps * (_SUM if half else 1), "eps")
            if half:
                small = t.div(small, length)
            keys, length = self._focused(t, t.add(k, encoding), share=1.0 if half else 1 / places)
            if half:  # sums over the positions have to use its range, whatever the units of k and v are
                top = t.reduce("ReduceMax", length, (2, 3))
                length, small = t.div(length, top), t.div(small, top)
                peak = largest(t, v, (1, 2, 3))
                v = t.div(v, peak)
                keys = t.mul(t.mul(keys, length), t.scalar(_SUM / _LIFT / places, "share"))
            queries, keys, v = (reshape(t, z, (0, heads, width, places)) for z in (queries, keys, v))
            if half:
                small = reshape(t, small, (0, 1, 1, places))
                top = largest(t, queries, (2,), _LIFT * 2.0**-15)
                queries, small = t.div(queries, top), t.mul(small, t.div(t.scalar(_LIFT, "lift"), top))
            total = transpose(t, t.plain_reduce("ReduceSum", keys, (3,)), (0, 1, 3, 2))
            total = t.add(t.op("MatMul", total, queries), small)
            y = t.op("MatMul", t.op("MatMul", v, transpose(t, keys, (0, 1, 3, 2))), queries)
            y = t.mul(t.div(y, t.op("Max", total, t.scalar(SMALLEST, "least"))), peak) if half else t.div(y, total)
        return reshape(t, t.cast(y), (0, channels, tall, wide))

    def _focused(self, t: Template, z: Variable, share: float = 1.0) -> tuple[Variable, Variable]:
        """f(z) times a share, [N, C, h, w], in float16 its directions times _LIFT; and lengths [N, 1, h, w] of f(z).

        Not directions elsewhere, since a converter to float16 would lose the epsilon over a length.
        """
        unit = 1 / np.logaddexp(0, t.kept("scale").reshape(1, -1, 1, 1))
        small, half = _SMALL * unit, t.dtype == "float16"
        if half:
            small = np.maximum(small, _LEAST_HALF)
        z = t.add(t.mul(t.relu(z), t.constant(unit, "per_scale")), t.constant(small, "shift"))
        length = t.reduce("ReduceMax", z, (1,)) if half else _norm(t, z)
        lifted = t.target == "onnxruntime" and not half and self.integer("factor") <= _LIFTED_UP_TO
        part = t.div(z, t.mul(length, t.scalar(1 / _ABOVE_SUBNORMAL, "per_lift")) if lifted else length)
        if not half:
            powers = self._power(t, part, part)
            scaled = t.mul(length, t.scalar(share, "share")) if share != 1 else length
            return t.div(powers, t.div(_norm(t, powers), scaled)), length
        length = t.mul(length, _norm(t, part))
        powers = self._power(t, t.mul(part, t.scalar(_LIFT, "lift")), part)
        return t.div(powers, _norm(t, t.mul(powers, t.scalar(1 / _LIFT, "per_lift")))), length

    def _power(self, t: Template, powers: Variable, part: Variable) -> Variable:
        """``powers`` times part^(p - 1)."""
        for _ in range(self.integer("factor") - 1):
            powers = t.mul(powers, part)
        return powers


def _norm(t: Template, z: Variable) -> Variable:
    return t.op("Sqrt", t.reduce("ReduceSum", t.mul(z, z), (1,)))


def _centred(kernel: Array, side: int) -> Array:
    """A kernel [C, 1, k, k] with zeros around it."""
    border = (side - kernel.shape[2]) // 2
    return np.pad(kernel, ((0, 0), (0, 0), (border, border), (border, border)))
