"""GC, global context: one context for the whole map, pooled by a learned softmax, transformed, added or multiplied.

Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCVW 2019, arXiv:1904.11492.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes, torch_default

from ..forms import GC_FORMS, GcForm
from .catalogue import CatalogueBlock
from .layers import linear, linear_then_bias, softmax_mean
from .norms import layer_norm
from .transformer import softmax
from .widths import require_hidden, rounded_up


class GlobalContext(CatalogueBlock):
    """The bias of the mask's convolution cancels in the softmax and is left out."""

    name = "gc"
    title = "Global Context"
    demand = 19
    paper = "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, ICCVW 2019, arXiv:1904.11492"
    reference = "xvjiarui/GCNet, mmdet/ops/gcb/context_block.py (and mmcv ContextBlock)"
    formula = (
        "y = x + fc2(relu(LayerNorm(fc1(sum over H, W of softmax(mask(x)) * x)))); -mul: y = x * sigmoid(fc2(...))"
    )
    untrained = "leaves its input as it is (official); halves it (the multiplying ones)"
    variants: ClassVar[dict[str, str]] = {
        "official": "the context is added: GCNet's and mmcv's channel_add, C/16 hidden channels",
        "official-mul": "the context is a gate: channel_mul",
        "timm": "timm's GlobalContext as it is by default: a gate, C/8 hidden channels, LayerNorm epsilon 1e-6",
        "timm-add": "timm's GlobalContext with fuse_add and without fuse_scale",
    }
    identity_learns = ("official", "timm-add")
    settings = (
        Setting("reduction", int, None, "channels over hidden channels, else 16 (timm: 8)", minimum=1),
        Setting("hidden", int, None, "hidden channels; overrules the reduction", minimum=1),
    )

    @property
    def _form(self) -> GcForm:
        return GC_FORMS[str(self.variant)]

    @property
    def _reduction(self) -> int:
        return int(self.values["reduction"] or self._form.reduction)

    def default_hidden(self, feature: FeatureMap) -> int:
        if self._form.timm:
            return rounded_up(feature.channels, self._reduction)
        return feature.channels // self._reduction

    def check(self, feature: FeatureMap) -> None:
        require_hidden(self.hidden(feature), self._reduction, feature)

    def warnings(self, feature: FeatureMap) -> list[str]:
        lost = "one hidden channel, normalised over itself, is a constant: the context does not reach the output"
        return [lost] if self.hidden(feature) == 1 else []

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        form, channels, hidden = self._form, feature.channels, self.hidden(feature)
        norm = form.norm_shape(hidden)
        return {
            **layer_shapes({form.mask: (1, channels, 1, 1), form.fc1: (hidden, channels, 1, 1)}),
            f"{form.norm}.weight": norm,
            f"{form.norm}.bias": norm,
            **layer_shapes({form.fc2: (channels, hidden, 1, 1)}),
        }

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        form, shapes = self._form, self.parameters(feature)
        values = torch_default(shapes, rng)
        mask = shapes[f"{form.mask}.weight"]
        values[f"{form.mask}.weight"] = rng.normal(0.0, np.sqrt(2 / mask[1]), mask).astype(np.float32)
        values[f"{form.norm}.weight"] = np.ones_like(values[f"{form.norm}.weight"])
        zero = [f"{form.norm}.bias"]
        if not form.timm:
            zero += [f"{form.mask}.bias", f"{form.fc2}.weight", f"{form.fc2}.bias"]
        elif form.add:
            zero += [f"{form.fc2}.weight"]
        return values | {key: np.zeros_like(values[key]) for key in zero}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_biases(feature, {self._form.fc2: 0.0 if self._form.add else SATURATED})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        key = f"{self._form.fc1}.weight"
        return {"hidden": shapes[key][0]} if key in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        # onnxruntime reorders the map for a convolution and writes a product of its size for the means
        return ("means",) if feature.static and feature.large else ("means", "matmul")

    def emit(self, t: Template, lowering: str) -> Variable:
        form = self._form
        context = self._by_matmul(t) if lowering == "matmul" else self._by_means(t)
        hidden = t.relu(layer_norm(t, linear(t, context, form.fc1), form.norm, form.eps))
        if form.add:
            return t.add(t.x, linear_then_bias(t, hidden, form.fc2))
        return t.mul(t.x, t.sigmoid(linear(t, hidden, form.fc2)))

    def _by_means(self, t: Template) -> Variable:
        return softmax_mean(t, linear(t, t.x, self._form.mask, bias=False))

    def _by_matmul(self, t: Template) -> Variable:
        """Logits and pooling as matrix products on [N, C, M] with M = H*W."""
        channels, positions = t.feature.channels, t.feature.area if t.feature.static else -1
        flat = t.op("Reshape", t.x, t.integers([0, channels, positions], "flat"))
        logits = t.op("MatMul", t.weight(f"{self._form.mask}.weight", (1, 1, channels)), flat)
        weights = t.op("Reshape", softmax(t, logits, 3), t.integers([0, positions, 1], "weights"))
        return t.op("Reshape", t.op("MatMul", flat, weights), t.integers([0, channels, 1, 1], "context"))
