"""GC, global context: one context for the whole map, pooled by a learned softmax, transformed, added or multiplied.

Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCVW 2019, arXiv:1904.11492.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks.block import SATURATED, Array, Block, Setting
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template.template import Template

from .hidden import require_hidden, rounded_up
from .initial import torch_default
from .norms import layer_norm
from .parts import linear, softmax_mean
from .transformer import softmax

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Form:
    """How a source has it: prefixes of its layers, and what is left to a default there."""

    mask: str
    fc1: str
    norm: str
    fc2: str
    add: bool
    reduction: int
    eps: float
    norm_rank: int


def _official(branch: str, *, add: bool) -> _Form:
    return _Form("conv_mask", f"{branch}.0", f"{branch}.1", f"{branch}.3", add, 16, 1e-5, 3)


def _timm(branch: str, *, add: bool) -> _Form:
    return _Form("conv_attn", f"{branch}.fc1", f"{branch}.norm", f"{branch}.fc2", add, 8, 1e-6, 1)


_FORMS = {
    "official": _official("channel_add_conv", add=True),
    "official-mul": _official("channel_mul_conv", add=False),
    "timm": _timm("mlp_scale", add=False),
    "timm-add": _timm("mlp_add", add=True),
}


class GlobalContext(Block):
    """The bias of the mask's convolution cancels in the softmax and is not emitted."""

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
    settings = (
        Setting("reduction", int, None, "channels over hidden channels, else 16 (timm: 8)", minimum=1),
        Setting("hidden", int, None, "hidden channels; overrules the reduction", minimum=1),
    )

    @property
    def _form(self) -> _Form:
        return _FORMS[str(self.variant)]

    @property
    def _reduction(self) -> int:
        return int(self.values["reduction"] or self._form.reduction)

    def _hidden(self, feature: FeatureMap) -> int:
        if self.values["hidden"]:
            return int(self.values["hidden"])
        if str(self.variant).startswith("timm"):
            return rounded_up(feature.channels, self._reduction)
        return feature.channels // self._reduction

    def check(self, feature: FeatureMap) -> None:
        require_hidden(self._hidden(feature), self._reduction, feature)

    def warnings(self, feature: FeatureMap) -> list[str]:
        if self._hidden(feature) == 1:
            return ["one hidden channel, normalised over itself, is a constant: the context does not reach the output"]
        return []

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        form, channels, hidden = self._form, feature.channels, self._hidden(feature)
        norm = (hidden, 1, 1)[: form.norm_rank]
        return {
            f"{form.mask}.weight": (1, channels, 1, 1),
            f"{form.mask}.bias": (1,),
            f"{form.fc1}.weight": (hidden, channels, 1, 1),
            f"{form.fc1}.bias": (hidden,),
            f"{form.norm}.weight": norm,
            f"{form.norm}.bias": norm,
            f"{form.fc2}.weight": (channels, hidden, 1, 1),
            f"{form.fc2}.bias": (channels,),
        }

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        form, shapes = self._form, self.parameters(feature)
        values = torch_default(shapes, rng)
        mask = shapes[f"{form.mask}.weight"]
        values[f"{form.mask}.weight"] = rng.normal(0.0, np.sqrt(2 / mask[1]), mask).astype(np.float32)
        for part, start in (("weight", 1.0), ("bias", 0.0)):
            key = f"{form.norm}.{part}"
            values[key] = np.full(shapes[key], start, np.float32)
        zero: list[str] = []
        if form.norm_rank == 3:
            zero = [f"{form.mask}.bias", f"{form.fc2}.weight", f"{form.fc2}.bias"]
        elif form.add:
            zero = [f"{form.fc2}.weight"]
        return values | {key: np.zeros(shapes[key], np.float32) for key in zero}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        values = self.initial(feature, np.random.default_rng(0))
        weight, bias = f"{self._form.fc2}.weight", f"{self._form.fc2}.bias"
        values[weight] = np.zeros_like(values[weight])
        values[bias] = np.full_like(values[bias], 0.0 if self._form.add else SATURATED)
        return values

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        key = f"{self._form.fc1}.weight"
        return {"hidden": shapes[key][0]} if key in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        return ("means",) if feature.static and feature.large else ("means", "matmul")

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        # onnxruntime reorders the map for a convolution and writes a product of its size for the means
        return lowerings[-1] if t.target == "onnxruntime" else "means"

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        form = self._form
        context = self._by_matmul(t) if lowering == "matmul" else self._by_means(t)
        hidden = t.relu(layer_norm(t, linear(t, context, form.fc1), form.norm, form.eps))
        context = linear(t, hidden, form.fc2)
        return t.add(t.x, context) if form.add else t.mul(t.x, t.sigmoid(context))

    def _by_means(self, t: Template) -> gs.Variable:
        return softmax_mean(t, linear(t, t.x, self._form.mask, bias=False))

    def _by_matmul(self, t: Template) -> gs.Variable:
        """Logits and pooling as matrix products on [N, C, M] with M = H*W."""
        channels, positions = t.feature.channels, t.feature.area if t.feature.static else -1
        flat = t.op("Reshape", t.x, t.integers([0, channels, positions], "flat"))
        logits = t.op("MatMul", t.weight(f"{self._form.mask}.weight", (1, 1, channels)), flat)
        weights = t.op("Reshape", softmax(t, logits, 3), t.integers([0, positions, 1], "weights"))
        return t.op("Reshape", t.op("MatMul", flat, weights), t.integers([0, channels, 1, 1], "context"))

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from graphsurgery.patterns.modules.gc import GlobalContext as Module

        return Module(feature.channels, self._hidden(feature), str(self.variant))
