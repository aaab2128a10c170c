"""MLCA, Mixed Local Channel Attention: ECA's gate of the whole map, mixed with one for each of 5 x 5 cells.

Wan et al., "Mixed local channel attention for object detection", Engineering Applications of Artificial Intelligence
123, 106442, 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2
from typing import TYPE_CHECKING

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.block import Array, Block, Setting
from graphsurgery.errors import BlockError
from graphsurgery.featuremap import FeatureMap
from graphsurgery.patterns.attention.initial import torch_default
from graphsurgery.template import Template

if TYPE_CHECKING:
    import torch

_SMALL = 1600  # positions; beyond, the matrices of one product take more than half a megabyte


class MixedLocalChannelAttention(Block):
    """Pooling to cells and spreading them again are both separable: products with constant matrices on both sides."""

    name = "mlca"
    title = "Mixed Local Channel Attention"
    demand = 26
    paper = "Mixed local channel attention for object detection, Eng. Appl. Artif. Intell. 123:106442, EAAI 2023"
    reference = "wandahangFY/MLCA, MLCA.py"
    formula = (
        "y = x * up(w * sigmoid(conv_local(cells)) + (1 - w) * sigmoid(conv(mean of cells))), cells = 5x5 means, "
        "position by position in one sequence"
    )
    untrained = "halves its input"
    settings = (
        Setting("local_size", int, 5, "cells along each side", minimum=1),
        Setting("local_weight", float, 0.5, "share of the cells' own gate", minimum=0),
        Setting("kernel_size", int, None, "channels that the convolutions see, odd; from C if not given", minimum=1),
    )

    def _kernel(self, feature: FeatureMap) -> int:
        if self.values["kernel_size"]:
            return int(self.values["kernel_size"])
        k = int(abs(log2(feature.channels) + 1) / 2)
        return k if k % 2 else k + 1

    @property
    def _cells(self) -> int:
        return int(self.values["local_size"] or 1)

    @property
    def _share(self) -> float:
        return float(self.values["local_weight"] or 0)

    def check(self, feature: FeatureMap) -> None:
        if not feature.static:
            raise BlockError(f"mlca has fixed cells, and {feature.label} has a dynamic height or width")
        if self._kernel(feature) % 2 == 0:
            raise BlockError(f"kernel_size of mlca is odd, not {self._kernel(feature)}")
        if self._share > 1:
            raise BlockError(f"local_weight of mlca is a share from 0 to 1, not {self._share:g}")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        kernel = self._kernel(feature)
        return {"conv.weight": (1, 1, kernel), "conv_local.weight": (1, 1, kernel)}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        return torch_default(self.parameters(feature), rng)

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        return {"kernel_size": max(shapes["conv.weight"])} if "conv.weight" in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """One product over all positions, whose matrix has cells times positions numbers, or one for each side; or a
        pooling to cells of equal size, and copies of them.
        """
        if not feature.static:
            return ("sides",)
        equal = all(side % self._cells == 0 for side in feature.size)
        return [*(["positions"] if feature.area <= _SMALL else []), *(["cells"] if equal else []), "sides"]

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        others = [form for form in lowerings if form != "cells"]
        return "cells" if t.target == "onnxruntime" and len(others) < len(lowerings) else others[0]

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        channels, count = t.feature.channels, self._cells**2
        down = [_means(side, self._cells) for side in t.feature.size]
        up = [_means(self._cells, side) for side in t.feature.size]
        cells_shape = [0, channels, count]
        if lowering == "positions":
            flat = t.op("Reshape", t.x, t.integers([0, channels, t.feature.area], "positions"))
            cells = t.op("MatMul", flat, _rank(t, np.kron(*down).T, 3, "cells"))
        elif lowering == "cells":
            sides = [side // self._cells for side in t.feature.size]
            means = t.op("AveragePool", t.x, kernel_shape=sides, strides=sides)
            cells = t.op("Reshape", means, t.integers(cells_shape, "flat"))
        else:
            cells = t.op("Reshape", _both_sides(t, t.x, down, "cells"), t.integers(cells_shape, "flat"))

        share = self._share
        sequence = t.op(
            "Reshape", t.op("Transpose", cells, perm=[0, 2, 1]), t.integers([0, *_ones(t)[1:], -1], "sequence")
        )
        sequence = self._gate(t, sequence, "conv_local", share)
        local = t.op("Reshape", sequence, t.integers([0, count, channels], "by_cell"))
        local = t.op("Transpose", local, perm=[0, 2, 1])
        whole = t.op("Reshape", t.reduce("ReduceMean", cells, (2,)), t.integers([0, *_ones(t)[1:], channels], "row"))
        whole = t.op("Reshape", self._gate(t, whole, "conv", 1 - share), t.integers([0, channels, 1], "column"))
        gate = t.add(local, whole)

        if lowering == "positions":
            wide = t.op("MatMul", gate, _rank(t, np.kron(*up).T, 3, "spread"))
            spread = t.op("Reshape", wide, t.integers([0, channels, *t.feature.size], "map"))
        elif lowering == "cells":
            spread = self._copied(t, gate, up[1])
        else:
            grid = t.op("Reshape", gate, t.integers([0, channels, self._cells, self._cells], "grid"))
            spread = _both_sides(t, grid, up, "spread")
        return t.mul(t.x, spread)

    def _copied(self, t: Template, gate: gs.Variable, columns: Array) -> gs.Variable:
        """Cells [N, C, s^2] to the map: along the width as a product with zeros and ones, along the height by Tile."""
        rows, (height, width) = t.feature.channels * self._cells, t.feature.size
        lines = t.op("Reshape", gate, t.integers([0, rows, self._cells], "lines"))
        lines = t.op("MatMul", lines, _rank(t, columns.T, 3, "spread.columns"))
        lines = t.op("Reshape", lines, t.integers([0, rows, 1, width], "line"))
        lines = t.op("Tile", lines, t.integers([1, 1, height // self._cells, 1], "copies"))
        return t.op("Reshape", lines, t.integers([0, t.feature.channels, height, width], "map"))

    def _gate(self, t: Template, x: gs.Variable, layer: str, share: float) -> gs.Variable:
        ones = _ones(t)
        weight = t.weight(f"{layer}.weight", (*ones, -1))
        pads = [*[0] * (len(ones) - 2), weight.shape[-1] // 2] * 2
        return t.mul(t.sigmoid(t.conv(x, weight, pads=pads)), t.constant(np.full((*ones, 1), share), "share"))

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        from graphsurgery.patterns.modules.mlca import MixedLocalChannelAttention as Module

        return Module(self._kernel(feature), self._cells, self._share)


def _ones(t: Template) -> tuple[int, ...]:
    """What stands in front of a sequence; as in eca, onnxruntime is faster with one axis behind the channels."""
    return (1, 1) if t.target == "onnxruntime" else (1, 1, 1)


def _means(source: int, target: int) -> Array:
    """[target, source]: row i averages what an adaptive average pooling of ``source`` to ``target`` averages there."""
    matrix = np.zeros((target, source))
    for i in range(target):
        first, last = i * source // target, -(-(i + 1) * source // target)
        matrix[i, first:last] = 1 / (last - first)
    return matrix


def _both_sides(t: Template, x: gs.Variable, matrices: list[Array], name: str) -> gs.Variable:
    """(rows @ x) @ columns^T on [N, C, h, w]."""
    rows, columns = matrices
    tall = t.op("MatMul", _rank(t, rows, 4, f"{name}.rows"), x)
    return t.op("MatMul", tall, _rank(t, columns.T, 4, f"{name}.columns"))


def _rank(t: Template, matrix: Array, rank: int, name: str) -> gs.Constant:
    """onnxruntime makes one product of all channels where a matrix has two axes; TensorRT wants equal ranks."""
    return t.constant(matrix if t.target == "onnxruntime" else matrix.reshape(*[1] * (rank - 2), *matrix.shape), name)
