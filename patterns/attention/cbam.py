"""CBAM: a gate for every channel from its mean and maximum, then one for every position from those over the channels.

Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv:1807.06521.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import combinations
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import SATURATED, Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes
from graphsurgery.template import weight_folding

from ..forms import CBAM_FORMS, CBAM_POOLS, CbamForm
from . import norms, onnxruntime_forms
from .catalogue import CatalogueBlock, bn_eps
from .layers import (
    apart,
    biased,
    channel_planes,
    channel_planes_by_rows,
    folded_values,
    layer_weights,
    linear,
    linear_then_bias,
    multiplied,
)
from .widths import require_odd, rounded_up

_EXTERNAL = 49
"""The kernel that sets External-Attention's block apart from cv-attention's, which has the same keys."""
_CHANNEL = "(?i:channel_?att(?:ention|n)?|ca)"
_SPATIAL = "(?i:spatial_?att(?:ention|n)?|sa)"
_MLP = "fc|(?i:(?:shared_?)?mlp)"
_BOTTLENECK = tuple(name for name, form in CBAM_FORMS.items() if len(form.layers) == 2)
_NORMALISED = tuple(name for name, form in CBAM_FORMS.items() if form.bn)
_OFFICIAL = ("official",)
_POOL_TYPES = tuple("+".join(some) for count in range(1, 5) for some in combinations(CBAM_POOLS, count))


class CBAM(CatalogueBlock):
    """The mlp's second layer is linear, so it is applied once, to the sum of both hidden vectors, with twice its bias.

    The BatchNorm after the spatial convolution is folded into it.
    """

    name = "cbam"
    title = "Convolutional Block Attention Module"
    demand = 5
    paper = "CBAM: Convolutional Block Attention Module, ECCV 2018, arXiv:1807.06521"
    reference = "Jongchan/attention-module, MODELS/cbam.py"
    formula = (
        "x1 = x * sigmoid(mlp(mean over H, W of x) + mlp(max over H, W of x)); "
        "y = x1 * sigmoid(BN(conv7x7([max over C of x1, mean over C of x1])))"
    )
    untrained = "times about a quarter (0.15 to 0.4, by the draw of the spatial convolution)"
    variants: ClassVar[dict[str, str]] = {
        "official": "mlp C -> C/16 -> C with biases; planes max, mean; BatchNorm after the spatial convolution",
        "ultralytics": "one C x C layer on the mean alone, no mlp and no max; planes mean, max; no BatchNorm",
        "timm": "mlp without biases; planes mean, max; BatchNorm",
        "yolo-port": "the listing in most YOLO forks: mlp without biases; planes mean, max; no BatchNorm",
        "cv-attention": "mlp without biases; planes max, mean; spatial convolution with a bias, no BatchNorm",
        "external-attention": "cv-attention with a kernel of 49, plus x",
    }
    settings = (
        Setting("reduction", int, 16, "channels over hidden channels", minimum=1, variants=_BOTTLENECK),
        Setting("hidden", int, None, "hidden channels; overrules the reduction", minimum=1, variants=_BOTTLENECK),
        Setting(
            "kernel",
            int,
            7,
            "size of the spatial convolution, odd (ultralytics: 3 or 7; external-attention: 49 by default)",
            minimum=1,
        ),
        Setting(
            "pool_types",
            str,
            "avg+max",
            "what the mlp is given, each and the results added: mean, maximum, root of the sum of squares, logsumexp",
            choices=_POOL_TYPES,
            variants=_OFFICIAL,
            later=True,
        ),
        Setting(
            "spatial",
            bool,
            True,
            "whether positions have a gate; false is the code's no_spatial",
            variants=_OFFICIAL,
            later=True,
        ),
        bn_eps("BatchNorm", _NORMALISED),
    )
    aliases = (
        (rf"{_CHANNEL}\.(?:f|fc)([12])\.weight", r"channel_attention.fc\1.weight"),
        (rf"{_CHANNEL}\.(?:{_MLP})\.[01]\.weight", r"channel_attention.fc1.weight"),
        (rf"{_CHANNEL}\.(?:{_MLP})\.[23]\.weight", r"channel_attention.fc2.weight"),
        (rf"{_SPATIAL}\.(?:conv|conv1)\.weight", "spatial_attention.conv1.weight"),
        (rf"{_SPATIAL}\.cv1\.weight", "spatial_attention.cv1.weight"),
        (r"ca\.fc\.(weight|bias)", r"channel_attention.fc.\1"),
    )

    def __init__(self, variant: str | None = None, **values: object) -> None:
        if variant == "external-attention":
            values = {"kernel": CBAM_FORMS[variant].kernel, **values}
        super().__init__(variant, **values)

    @property
    def _spatial(self) -> bool:
        """Whether the gate of the positions follows that of the channels."""
        return self.values.get("spatial") is not False

    @property
    def _pools(self) -> Sequence[str]:
        """What the layers of the channel gate are given."""
        if len(self._form.layers) == 1:
            return ("avg",)
        return (self.text("pool_types") or "avg+max").split("+")

    @property
    def _form(self) -> CbamForm:
        return CBAM_FORMS[str(self.variant)]

    def official_key(self, key: str) -> str:
        """The aliases but for keys that are the variant's own: sa.conv.weight has another meaning in each."""
        own = (*self._form.layers, self._form.conv)
        return key if key.startswith(tuple(f"{prefix}." for prefix in own)) else super().official_key(key)

    def default_hidden(self, feature: FeatureMap) -> int:
        if self.variant == "timm":
            return rounded_up(feature.channels, self.integer("reduction"))
        return super().default_hidden(feature)

    def check(self, feature: FeatureMap) -> None:
        require_odd(self, "kernel", self.integer("kernel"), ": another would change the size of the map")
        if self.variant == "ultralytics" and self.integer("kernel") not in (3, 7):
            raise BlockError(f"kernel of cbam[ultralytics] is one of 3, 7, not {self.integer('kernel')}")
        super().check(feature)

    def warnings(self, feature: FeatureMap) -> list[str]:
        if self.variant != "cv-attention" or self.integer("kernel") != _EXTERNAL:
            return []
        return [
            f"a kernel of {_EXTERNAL} is that of External-Attention's CBAMBlock, which adds its input to the result; "
            f"{self.spelled} does not, and cbam[external-attention] does"
        ]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        form, channels = self._form, feature.channels
        widths = (channels, self.hidden(feature), channels) if len(form.layers) == 2 else (channels, channels)
        shapes: dict[str, tuple[int, ...]] = {}
        for prefix, inputs, outputs in zip(form.layers, widths, widths[1:], strict=False):
            shape = (outputs, inputs) if form.linear else (outputs, inputs, 1, 1)
            shapes |= layer_shapes({prefix: shape}, bias=form.bias)
        if not self._spatial:
            return shapes
        side = self.integer("kernel")
        shapes |= layer_shapes({form.conv: (1, 2, side, side)}, bias=form.conv_bias)
        return shapes | bn_shapes(form.bn, 1) if form.bn else shapes

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        form = self._form
        if not (form.bias and form.bn):
            raise self.no_identity("has a gate without a bias and cannot leave its input as it is")
        gates = (form.layers[-1], form.bn) if self._spatial else (form.layers[-1],)
        return self.with_biases(feature, dict.fromkeys(gates, SATURATED))

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        form, found = self._form, dict[str, object]()
        if len(form.layers) == 2 and f"{form.layers[0]}.weight" in shapes:
            found["hidden"] = shapes[f"{form.layers[0]}.weight"][0]
            if "spatial" in self.values:
                # an exporter that folds the BatchNorm may have lost the layer's name
                found["spatial"] = any(shape[:2] == (1, 2) and len(shape) == 4 for shape in shapes.values())
        if len(shapes.get(f"{form.conv}.weight", ())) == 4:
            found["kernel"] = shapes[f"{form.conv}.weight"][3]
        return found

    def _gemm_possible(self, opset: int) -> bool:
        # before opset 11 a Gemm has to have something to add
        return self._form.bias or opset >= 11

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """For onnxruntime the one that reads the map along its rows, or else the one that reorders no map."""
        forms = ["convolution", "gemm"] if self._gemm_possible(opset) else ["convolution"]
        return [*forms, "rows"] if feature.static and feature.dtype == "float32" and self._spatial else forms

    def emit(self, t: Template, lowering: str) -> Variable:
        gemm = lowering != "convolution" and self._gemm_possible(t.opset)
        x = t.mul(t.x, self._channel_gate(t, gemm=gemm))
        if self._spatial:
            x = t.mul(x, self._spatial_gate(t, x, lowering))
        return t.add(x, t.x) if self._form.adds_input else x

    def _channel_gate(self, t: Template, *, gemm: bool) -> Variable:
        """[N, C, 1, 1]."""
        if "lp" not in self._pools:
            return t.sigmoid(self._channel_logits(t, gemm=gemm))
        with t.statistics():  # a length grows with the root of the number of positions: its logits leave float16
            return t.sigmoid(self._channel_logits(t, gemm=gemm))

    def _spatial_gate(self, t: Template, x: Variable, lowering: str) -> Variable:
        """[N, C, H, W] -> [N, 1, H, W]."""
        form, planes = self._form, channel_planes_by_rows if lowering == "rows" else channel_planes
        kinds = ("ReduceMax", "ReduceMean") if form.max_first else ("ReduceMean", "ReduceMax")
        pooled, padding = planes(t, x, kinds), {"pads": [self.integer("kernel") // 2] * 4}
        if lowering == "rows" and onnxruntime_forms.in_steps(t.feature.size):
            return onnxruntime_forms.gate_in_steps(t, pooled, *self._spatial_weights(t), form.conv)
        if not form.bn and not form.conv_bias:
            return t.sigmoid(t.conv(pooled, t.weight(f"{form.conv}.weight"), **padding))
        shape = None if form.bias else apart(t)  # one of the two gates is enough
        if form.bn:
            weight, shift = folded_values(t, form.conv, form.bn, self.number("bn_eps"))
            bias = t.constant(shift.reshape(shape or -1), f"{form.conv}.bias")
        else:
            bias, weight = t.weight(f"{form.conv}.bias", shape), t.weight(f"{form.conv}.weight")
        return t.sigmoid(biased(t, pooled, weight, bias, **padding))

    def _spatial_weights(self, t: Template) -> tuple[Array, Array]:
        """Weight and bias of the convolution over the planes, with its BatchNorm folded in."""
        form = self._form
        weight = t.values(f"{form.conv}.weight")
        if form.bn:
            scale, shift = weight_folding.affine(t.values, form.bn, self.number("bn_eps"))
            return weight * scale.reshape(-1, 1, 1, 1), shift
        return weight, t.values(f"{form.conv}.bias") if form.conv_bias else np.zeros(1)

    def _channel_logits(self, t: Template, *, gemm: bool) -> Variable:
        """[N, C, 1, 1], without the sigmoid."""
        form = self._form
        pooled = [self._pooled(t, kind, gemm=gemm) for kind in self._pools]
        hidden, factor = pooled[0], 1.0
        if len(form.layers) == 2:
            hidden = reduce(t.add, [t.relu(x) for x in self._hidden(t, pooled, gemm=gemm)])
            factor = float(len(pooled))
        if form.bias and not gemm:
            return linear_then_bias(t, hidden, form.layers[-1], bias_factor=factor)
        logits = linear(t, hidden, form.layers[-1], bias=form.bias, bias_factor=factor, gemm=gemm)
        return t.op("Reshape", logits, t.integers([0, t.feature.channels, 1, 1], "shape")) if gemm else logits

    def _hidden(self, t: Template, pooled: Sequence[Variable], *, gemm: bool) -> list[Variable]:
        """The first of two layers, of every pooling.

        The matrix that the Gemms share is not one to be turned around: onnxruntime's quantiser would do so for each.
        """
        layer, bias = self._form.layers[0], self._form.bias
        if not gemm or not t.since(2):
            weights = layer_weights(t, layer, bias=bias, gemm=gemm)
            return [multiplied(t, x, weights, gemm=gemm) for x in pooled]
        matrix = t.rows(f"{layer}.weight", range(self.hidden(t.feature)), transposed=True)
        shift = [t.weight(f"{layer}.bias")] if bias else []
        return [t.op("Gemm", x, matrix, *shift) for x in pooled]

    def _pooled(self, t: Template, kind: str, *, gemm: bool) -> Variable:
        """What is taken of every channel: [N, C, 1, 1], or [N, C] for a Gemm."""
        if kind in _REDUCTIONS:
            return t.reduce(_REDUCTIONS[kind], t.x, (2, 3), 0 if gemm else 1)
        pooled = t.cast(_length(t) if kind == "lp" else _log_sum_exp(t))
        return t.op("Reshape", pooled, t.integers([0, t.feature.channels], "channels")) if gemm else pooled


_REDUCTIONS = {"avg": "ReduceMean", "max": "ReduceMax"}


def _sum(t: Template) -> Callable[[Variable], Variable]:
    return lambda x: t.reduce("ReduceSum", x, (2, 3))


def _length(t: Template) -> Variable:
    """The root of the sum of the squares over the positions."""
    with t.statistics():
        return norms.deviation(t, t.x, _sum(t))


def _log_sum_exp(t: Template) -> Variable:
    """The logarithm of the sum of the exponentials over the positions."""
    with t.statistics():
        largest = t.reduce("ReduceMax", t.x, (2, 3))
        return t.add(largest, t.op("Log", _sum(t)(t.op("Exp", t.sub(t.x, largest)))))
