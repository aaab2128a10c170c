"""MLCA, Mixed Local Channel Attention: ECA's gate of the whole map, mixed with one for each of 5 x 5 cells.

Wan et al., "Mixed local channel attention for object detection", Engineering Applications of Artificial Intelligence
123, 106442, 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2

import numpy as np
import onnx_graphsurgeon as gs

from graphsurgery.blocks import Array, BlockError, FeatureMap, Setting, Template, Variable

from .catalogue import CatalogueBlock
from .widths import require_odd, require_static

_SMALL = 1600  # positions; beyond, the matrices of one product take more than half a megabyte


class MixedLocalChannelAttention(CatalogueBlock):
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
            return self.integer("kernel_size")
        k = int(abs(log2(feature.channels) + 1) / 2)
        return k if k % 2 else k + 1

    def check(self, feature: FeatureMap) -> None:
        require_static(feature, "mlca has fixed cells")
        require_odd(self, "kernel_size", self._kernel(feature))
        if self.number("local_weight") > 1:
            raise BlockError(f"local_weight of mlca is a share from 0 to 1, not {self.number('local_weight'):g}")

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        kernel = self._kernel(feature)
        return {"conv.weight": (1, 1, kernel), "conv_local.weight": (1, 1, kernel)}

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        return {"kernel_size": max(shapes["conv.weight"])} if "conv.weight" in shapes else {}

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """One product over all positions, whose matrix has cells times positions numbers, or one for each side; or a
        pooling to cells of equal size.
        """
        if not feature.static:
            return ("sides",)
        equal = all(side % self.integer("local_size") == 0 for side in feature.size)
        return [*(["positions"] if feature.area <= _SMALL else []), *(["cells"] if equal else []), "sides"]

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        fixed = [form for form in lowerings if form != "cells"]
        return "cells" if t.target == "onnxruntime" and "cells" in lowerings else fixed[0]

    def emit(self, t: Template, lowering: str) -> Variable:
        size, share = self.integer("local_size"), self.number("local_weight")
        grid = [0, t.feature.channels, size, size]
        flat = [0, t.feature.channels, size**2]
        down = [_means(side, size) for side in t.feature.size]
        up = [_means(size, side) for side in t.feature.size]
        up[1] = up[1] / 2  # so that equal shares, the default, need no product; halves round nothing
        if lowering == "positions":
            row = t.op("Reshape", t.x, t.integers([*flat[:2], t.feature.area], "positions"))
            cells = t.op("MatMul", row, _rank(t, np.kron(*down).T, 3, "cells"))
        elif lowering == "cells":
            sides = [side // size for side in t.feature.size]
            pooled = t.op("AveragePool", t.x, kernel_shape=sides, strides=sides)
            cells = t.op("Reshape", pooled, t.integers(flat, "flat"))
        else:
            cells = t.op("Reshape", _both_sides(t, t.x, down, "cells"), t.integers(flat, "flat"))

        by_cell = t.op("Transpose", cells, perm=[0, 2, 1])
        whole = t.reduce("ReduceMean", by_cell, (1,))
        local = self._gate(t, by_cell, "conv_local", 2 * share, [0, size**2, -1])
        local = t.op("Transpose", local, perm=[0, 2, 1])
        whole = self._gate(t, whole, "conv", 2 * (1 - share), [0, -1, 1])
        gate = t.add(local, whole)

        if lowering == "positions":
            wide = t.op("MatMul", gate, _rank(t, np.kron(*up).T, 3, "spread"))
            return t.mul(t.x, t.op("Reshape", wide, t.integers([*flat[:2], *t.feature.size], "map")))
        return t.mul(t.x, _both_sides(t, t.op("Reshape", gate, t.integers(grid, "grid")), up, "spread"))

    def _gate(self, t: Template, x: Variable, layer: str, factor: float, shape: Sequence[int]) -> Variable:
        """sigmoid of the convolution of one sequence of all numbers of [N, S, C], times a factor."""
        one = 1 if t.target == "onnxruntime" else 2  # as in eca, that is faster with one axis after the channels
        sequence = t.op("Reshape", x, t.integers([0, *[1] * one, -1], "sequence"))
        weight = t.weight(f"{layer}.weight", (*[1] * (one + 1), -1))
        gate = t.sigmoid(t.conv(sequence, weight, pads=[*[0] * (one - 1), weight.shape[-1] // 2] * 2))
        if factor != 1:
            gate = t.mul(gate, t.constant(np.full([1] * (one + 2), factor), "share"))
        return t.op("Reshape", gate, t.integers(shape, "by_cell"))

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        return {"kernel_size": self._kernel(feature)}


def _means(source: int, target: int) -> Array:
    """[target, source]: row i averages what an adaptive average pooling of ``source`` to ``target`` averages there."""
    matrix = np.zeros((target, source))
    for i in range(target):
        first, last = i * source // target, -(-(i + 1) * source // target)
        matrix[i, first:last] = 1 / (last - first)
    return matrix


def _both_sides(t: Template, x: Variable, matrices: list[Array], name: str) -> Variable:
    """rows @ (x @ columns^T) on [N, C, h, w]: onnxruntime makes one product of the inner ones."""
    rows, columns = matrices
    wide = t.op("MatMul", x, _rank(t, columns.T, 4, f"{name}.columns"))
    return t.op("MatMul", _rank(t, rows, 4, f"{name}.rows"), wide)


def _rank(t: Template, matrix: Array, rank: int, name: str) -> gs.Constant:
    """A matrix of two axes: onnxruntime makes one product of all channels, and its quantiser takes no other."""
    if t.target == "onnxruntime" or t.since(2):
        return t.constant(matrix, name)
    return t.constant(matrix.reshape(*[1] * (rank - 2), *matrix.shape), name)
