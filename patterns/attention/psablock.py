"""PSABlock of YOLO11 and ABlock of YOLO12: self-attention and a feed-forward part, with shortcuts.

PSABlock is the block inside C2PSA; its attention is that of YOLOv10 (arXiv:2405.14458), and there is no paper of its
own. ABlock is that inside A2C2f: Tian et al., "YOLOv12: Attention-Centric Real-Time Object Detectors",
arXiv:2502.12524.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes
from graphsurgery.template import weight_folding

from ..forms import PSA_FORMS, PsaForm
from .activations import silu
from .catalogue import CatalogueBlock
from .transformer import attend, attend_in_runs, in_heads, like_map
from .widths import require_divisor, require_odd, require_static

_PARTS = ("conv.weight", "conv.bias", *(f"bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")))
"""of a convolution with its BatchNorm"""


class PSABlock(CatalogueBlock):
    """q, k and v, which lie interleaved head by head in the weights, come out of three convolutions, each as a map.

    The scale of the logits is part of q's weights, and no map is sliced. BatchNorms are folded in.
    """

    name = "psablock"
    title = "PSABlock (YOLO11), ABlock (YOLO12)"
    demand = 45
    quadratic = True
    paper = (
        "none of its own; the attention is that of YOLOv10: Real-Time End-to-End Object Detection, arXiv:2405.14458; "
        "area: YOLOv12: Attention-Centric Real-Time Object Detectors, arXiv:2502.12524"
    )
    reference = "ultralytics/ultralytics, nn/modules/block.py, PSABlock and ABlock"
    formula = (
        "z = x + proj(o + pe(v)), o = v softmax(q^T k / sqrt(d_k))^T for each head, [q, k, v] = qkv(x); "
        "y = z + ffn.1(silu(ffn.0(z))); every convolution with BatchNorm; area: the softmax within areas of the map"
    )
    untrained = "its input plus two learned terms; about the scale of its input"
    identity_learns = True
    variants: ClassVar[dict[str, str]] = {
        "yolo11": "PSABlock: attention over all positions",
        "area": "ABlock: attention within areas, keys as wide as values, a 7x7 convolution of v",
    }
    module_classes: ClassVar[dict[str, str]] = {"area": "ABlock"}
    settings = (
        Setting("num_heads", int, None, "heads; C/64, in area C/32, at least 1, where not given", minimum=1),
        Setting("attn_ratio", float, 0.5, "channels of a key over those of a value", above=0, variants=("yolo11",)),
        Setting("shortcut", bool, True, "whether the input of each part is added to its output", variants=("yolo11",)),
        Setting("area", int, 1, "areas that the map is cut into; YOLO12 has 4 at P4", minimum=1, variants=("area",)),
        Setting("mlp_ratio", float, 1.2, "hidden width of the feed-forward part over C", above=0, variants=("area",)),
        Setting("hidden", int, None, "the same in channels; overrules mlp_ratio", minimum=1, variants=("area",)),
        Setting("pe_kernel", int, 7, "side of the convolution of v", minimum=1, variants=("area",)),
        Setting("bn_eps", float, 1e-3, "epsilon of the BatchNorms: 1e-3 in every model built by Ultralytics", above=0),
        Setting("fused", bool, False, "biases in place of the BatchNorms, as model.fuse() leaves them"),
    )

    @property
    def _form(self) -> PsaForm:
        return PSA_FORMS[str(self.variant)]

    @property
    def _areas(self) -> int:
        return self.integer("area") or 1

    @property
    def _has_shortcut(self) -> bool:
        return self.variant == "area" or self.flag("shortcut")

    def _heads(self, feature: FeatureMap) -> int:
        return self.integer("num_heads") or max(feature.channels // self._form.head, 1)

    def _widths(self, feature: FeatureMap) -> tuple[int, int]:
        """Channels of a head's keys and of its values."""
        value = feature.channels // self._heads(feature)
        return int(value * self.number("attn_ratio")) if "attn_ratio" in self.values else value, value

    def default_hidden(self, feature: FeatureMap) -> int:
        return int(feature.channels * self.number("mlp_ratio")) if self.variant == "area" else 2 * feature.channels

    def check(self, feature: FeatureMap) -> None:
        heads = self._heads(feature)
        require_divisor(feature, heads, "heads")
        if self._widths(feature)[0] < 1:
            raise BlockError(
                f"{feature.label} has {feature.channels} channels; with {heads} heads and an attn_ratio of "
                f"{self.values['attn_ratio']} no channel is left for the keys"
            )
        if self.variant == "area":
            self._check_areas(feature)

    def scores(self, height: int, width: int) -> tuple[int, int]:
        return height * width, height * width // self._areas

    def _check_areas(self, feature: FeatureMap) -> None:
        require_odd(self, "pe_kernel", self.integer("pe_kernel"))
        if self.hidden(feature) < 1:
            raise BlockError(
                f"{feature.label} has {feature.channels} channels; an mlp_ratio of {self.values['mlp_ratio']} leaves "
                "the feed-forward part no hidden channel"
            )
        if self._areas > 1:
            require_static(feature, f"{self.spelled} cuts the map into areas", "; with area=1 it works on every size")
        if self._areas > 1 and feature.area % self._areas:
            raise BlockError(
                f"{feature.label} has {feature.area} positions, which {self._areas} areas do not divide; "
                "set area to a divisor"
            )

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, hidden, ffn = feature.channels, self.hidden(feature), self._form.ffn
        keys = 2 * self._widths(feature)[0] * self._heads(feature)
        kernel = self.integer("pe_kernel") or self._form.kernel
        weights = {
            "attn.qkv": (channels + keys, channels, 1, 1),
            "attn.proj": (channels, channels, 1, 1),
            "attn.pe": (channels, 1, kernel, kernel),
            f"{ffn}.0": (hidden, channels, 1, 1),
            f"{ffn}.1": (channels, hidden, 1, 1),
        }
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, shape in weights.items():
            shapes |= layer_shapes({f"{layer}.conv": shape}, bias=self.flag("fused"))
            shapes |= {} if self.flag("fused") else bn_shapes(f"{layer}.bn", shape[0])
        return shapes

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        values = super().initial(feature, rng)
        if self.variant == "yolo11":
            return values
        for key, weight in values.items():
            if key.endswith("conv.weight"):  # as in A2C2f
                values[key] = np.clip(rng.normal(0.0, 0.02, weight.shape), -2, 2).astype(np.float32)
            elif key.endswith("conv.bias"):
                values[key] = np.zeros_like(weight)
        return values

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if not self._has_shortcut:
            raise self.no_identity("without the shortcut cannot leave its input as it is")
        last = "conv" if self.flag("fused") else "bn"
        return self.with_biases(feature, {f"attn.proj.{last}": 0.0, f"{self._form.ffn}.1.{last}": 0.0})

    def regrouped(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """With q, k and v head by head. YOLOv12's first code has all of q, then all of k, and a layer for v."""
        found = dict(arrays)
        for part in _PARTS if self.variant == "area" else ():
            keys, values = f"attn.qk.{part}", f"attn.v.{part}"
            if not {keys, values} <= set(found) or found[values].ndim < 1:
                continue
            channels, *rest = found[values].shape
            heads = self.integer("num_heads") or max(channels // self._form.head, 1)
            if found[keys].shape == (2 * channels, *rest) and channels % heads == 0:
                rows = np.concatenate([found.pop(keys), found.pop(values)])
                found[f"attn.qkv.{part}"] = rows.reshape(3, heads, -1, *rest).swapaxes(0, 1).reshape(-1, *rest)
        return found

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        if "attn.qkv.conv.weight" not in shapes:
            return {}
        found: dict[str, object] = {"fused": "attn.qkv.conv.bias" in shapes}
        if self.variant == "area":
            for name, key, axis in (("pe_kernel", "attn.pe.conv.weight", 3), ("hidden", "mlp.0.conv.weight", 0)):
                found |= {name: shapes[key][axis]} if len(shapes.get(key, ())) == 4 else {}
        return found

    def emit(self, t: Template, lowering: str) -> Variable:
        z = self._shortcut(t, t.x, self._attended(t))
        hidden = silu(t, self._conv(t, z, f"{self._form.ffn}.0"))
        return self._shortcut(t, z, self._conv(t, hidden, f"{self._form.ffn}.1"))

    def _shortcut(self, t: Template, x: Variable, y: Variable) -> Variable:
        return t.add(x, y) if self._has_shortcut else y

    def _attended(self, t: Template) -> Variable:
        heads, (key, value) = self._heads(t.feature), self._widths(t.feature)
        first = [head * (2 * key + value) for head in range(heads)]
        ranges = {"q": (0, key), "k": (key, 2 * key), "v": (2 * key, 2 * key + value)}
        parts: dict[str, Variable] = {}
        for name, (start, stop) in ranges.items():
            rows = [row for offset in first for row in range(offset + start, offset + stop)]
            parts[name] = self._conv(t, t.x, "attn.qkv", rows=rows, factor=key**-0.5 if name == "q" else 1.0)
        q, k, v = (in_heads(t, parts[name], heads, stop - start) for name, (start, stop) in ranges.items())
        attended = attend(t, q, k, v) if self._areas == 1 else attend_in_runs(t, q, k, v, self._areas, key, value)
        o = like_map(t, attended, t.feature.channels)
        border = (self.integer("pe_kernel") or self._form.kernel) // 2
        place = self._conv(t, parts["v"], "attn.pe", pads=[border] * 4, group=t.feature.channels)
        return self._conv(t, t.add(o, place), "attn.proj")

    def _conv(
        self,
        t: Template,
        x: Variable,
        layer: str,
        *,
        rows: Sequence[int] | None = None,
        factor: float = 1.0,
        **attributes: Any,
    ) -> Variable:
        """A convolution with its BatchNorm, or some of its output channels times a factor."""
        key, bn, eps = f"{layer}.conv.weight", f"{layer}.bn", self.number("bn_eps")
        bias = t.values(f"{layer}.conv.bias") if self.flag("fused") else weight_folding.affine(t.values, bn, eps)[1]
        if rows is not None:
            weight = t.rows(key, rows, factor=factor, bn="" if self.flag("fused") else bn, eps=eps)
            return t.conv(x, weight, t.constant(bias[list(rows)] * factor, f"{layer}.conv.bias"), **attributes)
        if self.flag("fused"):
            return t.conv(x, t.weight(key), t.weight(f"{layer}.conv.bias"), **attributes)
        return t.conv(x, t.folded(key, bn, eps)[0], t.constant(bias, f"{layer}.conv.bias"), **attributes)

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"heads": self._heads(feature)}
