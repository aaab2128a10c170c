"""CBAM: a gate for every channel from its mean and maximum, then one for every position from those over the channels.

Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv:1807.06521.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks.block import SATURATED, Array, Block, Setting
from graphsurgery.blocks.initial_weights import bn_shapes, bn_values
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template import weight_folding
from graphsurgery.template.template import Template

from . import products
from .hidden import hidden_width, require_hidden, rounded_up
from .initial import torch_default
from .parts import channel_planes, channel_planes_by_rows, conv_bn

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Form:
    """How a source has it: prefixes of its layers, and which of them have biases."""

    layers: tuple[str, ...]
    conv: str
    bn: str | None = None
    linear: bool = False
    bias: bool = False
    conv_bias: bool = False
    planes: tuple[str, str] = ("ReduceMean", "ReduceMax")


_EXTERNAL = 49
"""The kernel that sets External-Attention's block apart from cv-attention's, which has the same keys."""
_MAX_FIRST = ("ReduceMax", "ReduceMean")
_FORMS = {
    "official": _Form(
        ("ChannelGate.mlp.1", "ChannelGate.mlp.3"),
        "SpatialGate.spatial.conv",
        "SpatialGate.spatial.bn",
        linear=True,
        bias=True,
        planes=_MAX_FIRST,
    ),
    "ultralytics": _Form(("channel_attention.fc",), "spatial_attention.cv1", bias=True),
    "timm": _Form(("channel.fc1", "channel.fc2"), "spatial.conv.conv", "spatial.conv.bn"),
    "yolo-port": _Form(("channel_attention.fc1", "channel_attention.fc2"), "spatial_attention.conv1"),
    "cv-attention": _Form(("ca.se.0", "ca.se.2"), "sa.conv", conv_bias=True, planes=_MAX_FIRST),
}
_BOTTLENECK = tuple(name for name, form in _FORMS.items() if len(form.layers) == 2)
_NORMALISED = tuple(name for name, form in _FORMS.items() if form.bn)


class CBAM(Block):
    """The mlp's second layer is linear, so it is applied once, to the sum of both hidden vectors, with twice its bias.

    The BatchNorm behind the spatial convolution is folded into it.
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
        "official": "mlp C -> C/16 -> C with biases; planes max, mean; BatchNorm behind the spatial convolution",
        "ultralytics": "one C x C layer on the mean alone, no mlp and no max; planes mean, max; no BatchNorm",
        "timm": "mlp without biases; planes mean, max; BatchNorm",
        "yolo-port": "the listing in most YOLO forks: mlp without biases; planes mean, max; no BatchNorm",
        "cv-attention": "mlp without biases; planes max, mean; spatial convolution with a bias, no BatchNorm",
    }
    settings = (
        Setting("reduction", int, 16, "channels over hidden channels", minimum=1, variants=_BOTTLENECK),
        Setting("hidden", int, None, "hidden channels; overrules the reduction", minimum=1, variants=_BOTTLENECK),
        Setting("kernel", int, 7, "size of the spatial convolution, odd (ultralytics: 3 or 7)", minimum=1),
        Setting(
            "bn_eps",
            float,
            1e-5,
            "epsilon of the BatchNorm; models trained with Ultralytics have 1e-3",
            above=0,
            variants=_NORMALISED,
        ),
    )
    aliases = (
        (r"(?:channel_attention|ca)\.f([12])\.weight", r"channel_attention.fc\1.weight"),
        (r"ca\.fc([12])\.weight", r"channel_attention.fc\1.weight"),
        (r"(?:spatial_attention|sa)\.(?:conv|conv1)\.weight", "spatial_attention.conv1.weight"),
        (r"(?:spatial_attention|sa)\.cv1\.weight", "spatial_attention.cv1.weight"),
        (r"ca\.fc\.(weight|bias)", r"channel_attention.fc.\1"),
    )

    @property
    def _form(self) -> _Form:
        return _FORMS[str(self.variant)]

    @property
    def _kernel(self) -> int:
        return int(self.values["kernel"] or 7)

    @property
    def _eps(self) -> float:
        return float(self.values.get("bn_eps") or 0)

    def official_key(self, key: str) -> str:
        """The aliases but for keys that are the variant's own: sa.conv.weight has another meaning in each."""
        own = (*self._form.layers, self._form.conv)
        return key if key.startswith(tuple(f"{prefix}." for prefix in own)) else super().official_key(key)

    def _hidden(self, feature: FeatureMap) -> int:
        if self.variant == "timm" and not self.values["hidden"]:
            return rounded_up(feature.channels, int(self.values["reduction"] or 1))
        return hidden_width(self, feature)

    def check(self, feature: FeatureMap) -> None:
        if self._kernel % 2 == 0:
            raise BlockError(f"kernel of cbam is odd, not {self._kernel}: another would change the size of the map")
        if self.variant == "ultralytics" and self._kernel not in (3, 7):
            raise BlockError(f"kernel of cbam[ultralytics] is one of 3, 7, not {self._kernel}")
        if len(self._form.layers) == 2:
            require_hidden(self._hidden(feature), self.values["reduction"], feature)

    def warnings(self, feature: FeatureMap) -> list[str]:
        if self.variant != "cv-attention" or self._kernel != _EXTERNAL:
            return []
        return [
            f"a kernel of {_EXTERNAL} is that of External-Attention's CBAMBlock, which adds its input to the result; "
            f"{self.spelled} does not"
        ]

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        form, channels = self._form, feature.channels
        widths = (channels, self._hidden(feature), channels) if len(form.layers) == 2 else (channels, channels)
        shapes: dict[str, tuple[int, ...]] = {}
        for prefix, inputs, outputs in zip(form.layers, widths, widths[1:], strict=False):
            shapes[f"{prefix}.weight"] = (outputs, inputs) if form.linear else (outputs, inputs, 1, 1)
            if form.bias:
                shapes[f"{prefix}.bias"] = (outputs,)
        shapes[f"{form.conv}.weight"] = (1, 2, self._kernel, self._kernel)
        if form.conv_bias:
            shapes[f"{form.conv}.bias"] = (1,)
        return shapes | bn_shapes(form.bn, 1) if form.bn else shapes

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        return torch_default(self.parameters(feature), rng)

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        form = self._form
        if not (form.bias and form.bn):
            raise BlockError(
                f"{self.spelled} has a gate without a bias and cannot leave its input as it is; use --gate residual"
            )
        values = self.initial(feature, np.random.default_rng(0))
        last = form.layers[-1]
        values[f"{last}.weight"] = np.zeros_like(values[f"{last}.weight"])
        values[f"{last}.bias"] = np.full_like(values[f"{last}.bias"], SATURATED)
        return values | bn_values(form.bn, 1, 0.0, SATURATED)

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        form, found = self._form, dict[str, object]()
        if len(form.layers) == 2 and f"{form.layers[0]}.weight" in shapes:
            found["hidden"] = shapes[f"{form.layers[0]}.weight"][0]
        if len(shapes.get(f"{form.conv}.weight", ())) == 4:
            found["kernel"] = shapes[f"{form.conv}.weight"][3]
        return found

    def _gemm_possible(self, opset: int) -> bool:
        # before opset 11 a Gemm has to have something to add
        return self._form.bias or opset >= 11

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        forms = ["convolution", "gemm"] if self._gemm_possible(opset) else ["convolution"]
        return [*forms, "rows"] if feature.static and feature.dtype == "float32" else forms

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        """For onnxruntime the one that reads the map along its rows, or else the one that reorders no map."""
        return lowerings[-1] if t.target == "onnxruntime" else "convolution"

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        gemm = lowering != "convolution" and self._gemm_possible(t.opset)
        x = t.mul(t.x, t.sigmoid(self._channel_logits(t, gemm=gemm)))
        form, planes = self._form, channel_planes_by_rows if lowering == "rows" else channel_planes
        pooled, padding = planes(t, x, form.planes), {"pads": [self._kernel // 2] * 4}
        if lowering == "rows" and products.in_steps(t.feature.size):
            return t.mul(x, products.gate_in_steps(t, pooled, *self._spatial_weights(t), form.conv))
        if form.bn:
            return t.mul(x, t.sigmoid(conv_bn(t, pooled, form.conv, form.bn, self._eps, **padding)))
        bias = t.weight(f"{form.conv}.bias") if form.conv_bias else None
        return t.mul(x, t.sigmoid(t.conv(pooled, t.weight(f"{form.conv}.weight"), bias, **padding)))

    def _spatial_weights(self, t: Template) -> tuple[Array, Array]:
        """Weight and bias of the convolution over the planes, with its BatchNorm folded in."""
        form = self._form
        weight = t.values(f"{form.conv}.weight")
        if form.bn:
            scale, shift = weight_folding.affine(t.values, form.bn, self._eps)
            return weight * scale.reshape(-1, 1, 1, 1), shift
        return weight, t.values(f"{form.conv}.bias") if form.conv_bias else np.zeros(1)

    def _channel_logits(self, t: Template, *, gemm: bool) -> gs.Variable:
        """[N, C, 1, 1]. The sigmoid is left to the caller."""
        form, keep = self._form, 0 if gemm else 1

        def layer(number: int, *inputs: gs.Variable, bias_factor: float = 1.0) -> list[gs.Variable]:
            prefix = form.layers[number]
            outputs, width = t.values(f"{prefix}.weight").shape[:2]
            weights = [t.weight(f"{prefix}.weight", (outputs, width) if gemm else (outputs, width, 1, 1))]
            if form.bias:
                weights.append(t.weight(f"{prefix}.bias", factor=bias_factor))
            return [t.op("Gemm", x, *weights, transB=1) if gemm else t.conv(x, *weights) for x in inputs]

        pooled = t.reduce("ReduceMean", t.x, (2, 3), keep)
        if len(form.layers) == 1:
            (logits,) = layer(0, pooled)
        else:
            means, largest = (t.relu(x) for x in layer(0, pooled, t.reduce("ReduceMax", t.x, (2, 3), keep)))
            (logits,) = layer(1, t.add(means, largest), bias_factor=2.0)
        return t.op("Reshape", logits, t.integers([0, t.feature.channels, 1, 1], "shape")) if gemm else logits

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from graphsurgery.patterns.modules.cbam import CBAM as Module

        hidden = self._hidden(feature) if len(self._form.layers) == 2 else None
        return Module(feature.channels, str(self.variant), hidden, self._kernel, self._eps or 1e-5)
