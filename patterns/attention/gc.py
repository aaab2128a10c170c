"""GC, global context: one context for the whole map, pooled by a learned softmax, transformed, added or multiplied.

Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCVW 2019, arXiv:1904.11492.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from graphsurgery.blocks import SATURATED, Array, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import layer_shapes, torch_default

from ..forms import GC_FORMS, GcBranch, GcForm
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
        "y = x + fc2(relu(LayerNorm(fc1(sum over H, W of softmax(mask(x)) * x)))); -mul: y = x * sigmoid(fc2(...)); "
        "-both: the gate first, then the sum; pooling=average: the mean instead of the sum"
    )
    untrained = "leaves its input as it is (official); halves it (where there is a gate)"
    variants: ClassVar[dict[str, str]] = {
        "official": "the context is added: GCNet's and mmcv's channel_add, C/16 hidden channels",
        "official-mul": "the context is a gate: channel_mul",
        "official-both": "a gate and a term, each with layers of its own: channel_mul and channel_add",
        "timm": "timm's GlobalContext as it is by default: a gate, C/8 hidden channels, LayerNorm epsilon 1e-6",
        "timm-add": "timm's GlobalContext with fuse_add and without fuse_scale",
        "timm-both": "timm's GlobalContext with fuse_add and fuse_scale",
    }
    identity_learns = ("official", "official-both", "timm-add", "timm-both")
    settings = (
        Setting("reduction", int, None, "channels over hidden channels, else 16 (timm: 8)", minimum=1),
        Setting("hidden", int, None, "hidden channels; overrules the reduction", minimum=1),
        Setting("pooling", str, "attention", "how the context is pooled; average: pooling_type='avg', timm's "
                "use_attn=False", choices=("attention", "average"), later=True),
    )  # fmt: skip

    @property
    def _form(self) -> GcForm:
        return GC_FORMS[str(self.variant)]

    @property
    def _attends(self) -> bool:
        return self.text("pooling") == "attention"

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
        layers: dict[str, tuple[int, ...]] = {form.mask: (1, channels, 1, 1)} if self._attends else {}
        for branch in form.branches:
            layers[branch.fc1] = (hidden, channels, 1, 1)
            layers[branch.norm] = form.norm_shape(hidden)
            layers[branch.fc2] = (channels, hidden, 1, 1)
        shapes = layer_shapes(layers)
        return shapes | {f"{branch.norm}.bias": form.norm_shape(hidden) for branch in form.branches}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        form, shapes = self._form, self.parameters(feature)
        values, zero = torch_default(shapes, rng), []
        if self._attends:
            mask = shapes[f"{form.mask}.weight"]
            values[f"{form.mask}.weight"] = rng.normal(0.0, np.sqrt(2 / mask[1]), mask).astype(np.float32)
            zero += [] if form.timm else [f"{form.mask}.bias"]
        for branch in form.branches:
            values[f"{branch.norm}.weight"] = np.ones_like(values[f"{branch.norm}.weight"])
            zero += [f"{branch.norm}.bias"]
            if not form.timm:
                zero += [f"{branch.fc2}.weight", f"{branch.fc2}.bias"]
            elif branch.add:
                zero += [f"{branch.fc2}.weight"]
        return values | {key: np.zeros_like(values[key]) for key in zero}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        return self.with_biases(feature, {each.fc2: 0.0 if each.add else SATURATED for each in self._form.branches})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        key = f"{self._form.branches[0].fc1}.weight"
        if key not in shapes:
            return {}
        pooling = "attention" if f"{self._form.mask}.weight" in shapes else "average"
        return {"hidden": shapes[key][0], "pooling": pooling}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        if not self._attends:
            return ("mean",)
        # onnxruntime reorders the map for a convolution and writes a product of its size for the means
        return ("means",) if feature.static and feature.large else ("means", "matmul")

    def emit(self, t: Template, lowering: str) -> Variable:
        pool = {"means": self._by_means, "matmul": self._by_matmul, "mean": self._mean}[lowering]
        context, y = pool(t), t.x
        for branch in self._form.branches:
            term = self._transformed(t, context, branch)
            y = t.add(y, term) if branch.add else t.mul(y, t.sigmoid(term))
        return y

    def _transformed(self, t: Template, context: Variable, branch: GcBranch) -> Variable:
        """[N, C, 1, 1] -> [N, C, 1, 1]."""
        hidden = layer_norm(t, linear(t, context, branch.fc1), branch.norm, self._form.eps)
        last = linear_then_bias if branch.add else linear
        return last(t, t.relu(hidden), branch.fc2)

    def _mean(self, t: Template) -> Variable:
        return t.mean_hw(t.x)

    def _by_means(self, t: Template) -> Variable:
        return softmax_mean(t, linear(t, t.x, self._form.mask, bias=False))

    def _by_matmul(self, t: Template) -> Variable:
        """Logits and pooling as matrix products on [N, C, M] with M = H*W."""
        channels, positions = t.feature.channels, t.feature.area if t.feature.static else -1
        flat = t.op("Reshape", t.x, t.integers([0, channels, positions], "flat"))
        logits = t.op("MatMul", t.weight(f"{self._form.mask}.weight", (1, 1, channels)), flat)
        weights = t.op("Reshape", softmax(t, logits, 3), t.integers([0, positions, 1], "weights"))
        return t.op("Reshape", t.op("MatMul", flat, weights), t.integers([0, channels, 1, 1], "context"))
