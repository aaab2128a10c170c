"""Gather-Excite: gather a neighbourhood (or the whole map) per channel, excite, scale.

Hu et al., "Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks", NeurIPS 2018, arXiv:1810.12348.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, log2
from typing import Any, ClassVar

import numpy as np

from graphsurgery.blocks import SATURATED, Array, BlockError, FeatureMap, Setting, Template, Variable
from graphsurgery.blocks.initial_weights import bn_shapes, layer_shapes, torch_default
from graphsurgery.template import dla_mean, nearest_resize

from .catalogue import CatalogueBlock, bn_eps
from .layers import conv_bn
from .se import excite
from .widths import require_static, rounded_up


class GatherExcite(CatalogueBlock):
    """The gate is made on the small map: sigmoid and nearest-neighbour resize commute exactly."""

    name = "ge"
    title = "Gather-Excite"
    demand = 3
    paper = "Gather-Excite: Exploiting Feature Context in CNNs, NeurIPS 2018, arXiv:1810.12348"
    reference = "hujie-frank/GENet, prototxts RN50-GEPF, RN50-GEP and RN50-GEPP and figures; extents as in timm"
    formula = "y = x * sigmoid(resize(excite(gather(x))))"
    untrained = "theta-minus: times sigmoid of the local mean; the others: halves its input"
    remarks = (
        "the authors have no PyTorch code, and theta and theta-plus follow their prototxts; timm's class, with the "
        "same keys, has no ReLU in front of the MLP and pads the convolution over the whole map: ge[timm]",
        "theta-plus at extents 2, 4 and 8 is published nowhere: it is that of the whole map behind the other gathers",
    )
    variants: ClassVar[dict[str, str]] = {
        "theta-minus": "no parameters: average pooling, kernel 2e - 1, stride e",
        "theta": "depthwise convolutions with BatchNorm: one over the whole map, or log2(e) of 3x3, stride 2",
        "theta-plus": "theta, then ReLU and the two 1x1 convolutions of SE",
        "timm": "GatherExcite of timm up to 1.0.20 and of YOLO collections: any gather, then SE's convolutions at once",
    }
    settings = (
        Setting("extent", int, 0, "extent of the gather: 0 is the whole map", choices=(0, 2, 4, 8)),
        Setting(
            "extra_params", bool, False, "whether the gather is convolutions, and not a pooling", variants=("timm",)
        ),
        Setting("mlp", bool, True, "whether the two 1x1 convolutions follow, timm's use_mlp", variants=("timm",)),
        Setting("add_maxpool", bool, False, "whether a pooling takes half mean, half maximum", variants=("timm",)),
        Setting("hidden", int, None, "hidden channels, else C/16", minimum=1, variants=("theta-plus", "timm")),
        bn_eps(variants=("theta", "theta-plus", "timm")),
    )
    aliases = ((r"conv\.0\.(weight|bias)", r"gather.conv1.\1"), (r"conv\.1\.(\w+)", r"gather.norm1.\1"))

    @property
    def _timm(self) -> bool:
        return self.variant == "timm"

    @property
    def _excites(self) -> bool:
        """Whether two 1x1 convolutions follow the gather."""
        return self.flag("mlp") if self._timm else self.variant == "theta-plus"

    @property
    def _stages(self) -> int:
        """Depthwise convolutions of the gather: none, one over the whole map, or one for each halving."""
        if self.variant == "theta-minus" or (self._timm and not self.flag("extra_params")):
            return 0
        return int(log2(self.integer("extent"))) if self.integer("extent") else 1

    def default_hidden(self, feature: FeatureMap) -> int:
        return rounded_up(feature.channels, 16)

    def check(self, feature: FeatureMap) -> None:
        if self._stages and self.flag("add_maxpool"):
            raise BlockError("add_maxpool of ge[timm] is of its pooling, and with extra_params it has none")
        if self._stages and not self.integer("extent"):
            what = f"{self.spelled} with extent 0 has a convolution as large as the map"
            require_static(feature, what, "; give an extent of 2, 4 or 8")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        channels, shapes = feature.channels, dict[str, tuple[int, ...]]()
        for stage in range(1, self._stages + 1):
            kernel = (3, 3) if self.integer("extent") else feature.size
            shapes[f"gather.conv{stage}.weight"] = (channels, 1, *kernel)
            shapes |= bn_shapes(f"gather.norm{stage}", channels)
        if not self._excites:
            return shapes
        hidden = self.hidden(feature)
        return shapes | layer_shapes({"mlp.fc1": (hidden, channels, 1, 1), "mlp.fc2": (channels, hidden, 1, 1)})

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        values: dict[str, Array] = {}
        shapes = self.parameters(feature)
        if self._timm:
            return torch_default(shapes, rng)
        for key, shape in shapes.items():
            if key.startswith("mlp"):  # the prototxt's filler: Gaussian of deviation 0.01, biases 0
                values[key] = rng.normal(0.0, 0.01 if key.endswith("weight") else 0.0, size=shape).astype(np.float32)
            elif "conv" in key:
                values |= torch_default({key: shape}, rng)
        return values | torch_default({key: shape for key, shape in shapes.items() if ".norm" in key}, rng)

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        if not (self._excites or self._stages):
            return super().identity(feature)
        last = "mlp.fc2" if self._excites else f"gather.norm{self._stages}"
        return self.with_biases(feature, {last: SATURATED})

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        found: dict[str, object] = {}
        if "hidden" in self.values and "mlp.fc1.weight" in shapes:
            found["hidden"] = shapes["mlp.fc1.weight"][0]
        if self._timm:
            stages = sum(key.startswith("gather.conv") for key in shapes)
            found |= {"mlp": "mlp.fc1.weight" in shapes, "extra_params": stages > 0}
            if stages > 1 or shapes.get("gather.conv1.weight", ())[2:] == (3, 3):
                found["extent"] = 2**stages
        return found

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """How the map is gathered where that takes a convolution as large as the map, or how the gate is resized."""
        if self.integer("extent"):
            return ("resize", "matrices") if feature.static else ("resize",)
        if not self._stages:
            return ("mean", "gemm") if self._excites else ("mean",)
        if self._timm:
            return ("padded",)
        # a product with H*W times the weight can leave float16; a convolution is summed in float32
        forms = ["product", "convolution"] if feature.dtype in ("float32", "float64") else ["convolution"]
        return (*forms, "sums") if feature.static else forms

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        """Reductions rather than convolutions as large as a map for TensorRT; for onnxruntime what was measured.

        A DLA takes convolutions as large as the map, as far as its kernels go.
        """
        if t.target == "dla":
            wanted = "sums" if t.feature.static and max(t.feature.size) > dla_mean.KERNEL else "convolution"
            return wanted if wanted in lowerings else lowerings[0]
        if t.target == "onnxruntime" and "gemm" in lowerings:
            return "gemm"
        if t.target == "onnxruntime" and t.feature.dtype == "float32":
            if self.integer("extent") == 8 and "matrices" in lowerings:
                return "matrices"
            if "convolution" in lowerings:
                return "convolution"
        return lowerings[0]

    def emit(self, t: Template, lowering: str) -> Variable:
        if lowering == "gemm":
            gate = t.sigmoid(excite(t, self._pooled(t, keepdims=0), "mlp.", gemm=True))
            return t.mul(t.x, t.op("Reshape", gate, t.integers([0, t.feature.channels, 1, 1], "shape")))
        whole = lowering in ("product", "sums")
        gathered, size = self._whole_map(t, lowering) if whole else self._gather(t)
        if self._excites:
            gathered = excite(t, gathered if self._timm else t.relu(gathered), "mlp.")
        gate = t.sigmoid(gathered)
        if lowering == "matrices" and size is not None:
            return t.mul(t.x, nearest_resize.by_matrices(t, gate, size))
        enlarged = size != t.feature.size if lowering == "padded" else self.integer("extent") > 0
        return t.mul(t.x, t.resize_nearest(gate, size) if enlarged else gate)

    def _whole_map(self, t: Template, lowering: str) -> tuple[Variable, None]:
        """The convolution over the whole map as the mean of a product with its weight times H*W, or as a sum."""
        factor, shape = t.feature.area if lowering == "product" else 1.0, (1, t.feature.channels, *t.feature.size)
        weight, shift = t.folded(
            "gather.conv1.weight", "gather.norm1", self.number("bn_eps"), factor=factor, shape=shape
        )
        bias = t.constant(shift.reshape(1, -1, 1, 1), "gather.conv1.bias")
        weighted = t.mul(t.x, weight)
        return t.add(t.mean_hw(weighted) if lowering == "product" else dla_mean.total(t, weighted), bias), None

    def _gather(self, t: Template) -> tuple[Variable, tuple[int, int] | None]:
        """The gathered map and its (height, width), None where those are dynamic."""
        extent, size = self.integer("extent"), t.feature.size if t.feature.static else None
        small = (-(-size[0] // extent), -(-size[1] // extent)) if size and extent else size
        if not self._stages:
            return self._around(t, small) if extent else self._pooled(t), small
        x: Variable = t.x
        steps: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1]} if extent else {}
        if self._timm and not extent and size:
            # padded on both sides alike: of an even side one position is lost
            borders = [(side - 1) // 2 for side in size]
            steps, small = {"pads": borders * 2}, (2 * borders[0] + 1, 2 * borders[1] + 1)
        for stage in range(1, self._stages + 1):
            conv, bn, eps = f"gather.conv{stage}", f"gather.norm{stage}", self.number("bn_eps")
            x = conv_bn(t, t.relu(x) if stage > 1 else x, conv, bn, eps, group=t.feature.channels, **steps)
        return x, small

    def _pooled(self, t: Template, keepdims: int = 1) -> Variable:
        """The mean over the map, or half of it and half of the maximum: [N, C, 1, 1]; [N, C] without ``keepdims``."""
        mean = t.reduce("ReduceMean", t.x, (2, 3), keepdims)
        if not self.flag("add_maxpool"):
            return mean
        return self._halves(t, mean, t.reduce("ReduceMax", t.x, (2, 3), keepdims), 4 if keepdims else 2)

    def _around(self, t: Template, size: tuple[int, int] | None) -> Variable:
        """The same over the surroundings; ``size``: of the result, None where it is dynamic."""
        extent = self.integer("extent")
        window, border = 2 * extent - 1, extent - 1
        pool: dict[str, Any] = {"kernel_shape": [window] * 2, "strides": [extent] * 2, "pads": [border] * 4}
        if t.target == "dla" and window > dla_mean.WINDOW and size:
            mean = self._averaged(t, window, border, size)
        else:  # the mean is over the positions that exist: padding is not counted
            mean = t.op("AveragePool", t.x, **pool, count_include_pad=0)
        return self._halves(t, mean, t.op("MaxPool", t.x, **pool), 4) if self.flag("add_maxpool") else mean

    def _halves(self, t: Template, mean: Variable, largest: Variable, rank: int) -> Variable:
        """Half of each: their sum may leave float16."""
        half = t.constant(np.full([1] * rank, 0.5), "half")
        return t.add(t.mul(mean, half), t.mul(largest, half))

    def _averaged(self, t: Template, window: int, border: int, size: tuple[int, int]) -> Variable:
        """The same means as a convolution, times what is to be made up for where it counts padding."""
        channels, share = t.feature.channels, 2.0 ** -ceil(2 * log2(window))
        kernel = t.constant(np.full((channels, 1, window, window), share), "pool")
        total = t.conv(t.x, kernel, strides=[self.integer("extent")] * 2, pads=[border] * 4, group=channels)
        counts = []
        for side, count in zip(t.feature.size, size, strict=True):
            first = np.arange(count) * self.integer("extent") - border
            counts.append(np.minimum(first + window, side) - np.maximum(first, 0))
        return t.mul(total, t.constant(1 / (share * np.outer(*counts)[None, None]), "positions"))
