"""Nearest-neighbour resizing that picks exactly the neighbours that torch picks, at every opset.

torch: source = floor(target * in / out). ONNX: size = floor(in * scale), source = floor(target / scale), where the
scale is a float32 and runtimes compute with it in float32 or in float64. Both can fall on the wrong side of a whole
number. So scales are used where one exists that is right in either arithmetic; else the size itself, which not every
opset can say for a dynamic batch; else two products with matrices of zeros and ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from ..errors import BlockError
from .writer import GraphWriter


def resize(t: GraphWriter, x: gs.Variable, size: tuple[int, int] | None) -> gs.Variable:
    """``x`` [N, C, h, w] at the site's height and width; ``size`` is (h, w), None where the site's own is dynamic."""
    if size is None:
        return _dynamic(t, x)
    scales = [exact_scale(a, b) for a, b in zip(size, t.feature.size, strict=True)]
    # before opset 11 only a whole multiple has its neighbours defined, and OpenVINO and OpenCV read the rest otherwise
    exact = [s for s in scales if s is not None and (t.opset >= 11 or s.is_integer())]
    if len(exact) == len(scales):
        return _by_scales(t, x, exact)
    if t.opset >= 11 and t.feature.batch is not None:
        return _by_sizes(t, x, (t.feature.batch, t.feature.channels, *t.feature.size))
    if t.opset >= 18:
        return _by_sizes(t, x, t.feature.size, axes=[2, 3])
    return _by_selection(t, x, size)


def exact_scale(source: int, target: int) -> float | None:
    """A float32 scale that gives a resize from ``source`` to ``target`` the exact size and indices; None if none does.

    Where target / source is no float32 and the two have a common divisor, there is none.
    """
    nearest = np.float32(target / source)
    for candidate in (nearest, np.nextafter(nearest, np.float32(np.inf))):
        if all(_is_exact(kind(candidate), source, target) for kind in (np.float32, np.float64)):
            return float(candidate)
    return None


def _is_exact(scale: np.floating[Any], source: int, target: int) -> bool:
    """Whether size and indices come out right when they are computed in the type of ``scale``."""
    kind = type(scale)
    indices = np.floor(np.arange(target, dtype=kind) / scale)
    return int(kind(source) * scale) == target and np.array_equal(indices, np.arange(target) * source // target)


def by_matrices(t: GraphWriter, x: gs.Variable, size: tuple[int, int]) -> gs.Variable:
    """The same at a static site by products with a 0/1 matrix, for runtimes whose Resize is slow at large ratios.

    One product over all positions of a very small map, else one over the width and a Gather of the rows.
    """
    (h, w), (height, width) = size, t.feature.size
    rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
    if h * w <= _VERY_SMALL:
        flat = t.op("Reshape", x, t.integers([0, 0, h * w], "flat"))
        positions = np.eye(h * w)[(rows[:, None] * w + columns).reshape(-1)].T
        wide = t.op("MatMul", flat, t.constant(positions[None], "positions"))
        return t.op("Reshape", wide, t.integers([0, 0, height, width], "size"))
    wide = t.op("MatMul", x, t.constant(np.eye(w)[columns].T[None, None], "columns"))
    return t.op("Gather", wide, t.integers(rows.tolist(), "rows"), axis=2)


_VERY_SMALL = 16
_MODES: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def _by_scales(t: GraphWriter, x: gs.Variable, scales: Sequence[float]) -> gs.Variable:
    vector = t.floats([1.0, 1.0, *scales], "scales")
    if t.opset == 9:
        return t.op("Upsample", x, vector, mode="nearest")
    if t.opset == 10:
        return t.op("Resize", x, vector, mode="nearest")
    return t.op("Resize", x, _no_roi(t), vector, **_MODES)


def _by_sizes(t: GraphWriter, x: gs.Variable, sizes: Sequence[int], **axes: Any) -> gs.Variable:
    return t.op("Resize", x, _no_roi(t), _no_scales(t), t.integers(sizes, "sizes"), **_MODES, **axes)


def _by_selection(t: GraphWriter, x: gs.Variable, size: tuple[int, int]) -> gs.Variable:
    """rows @ x @ columns, with a single 1 in each row of ``rows`` and column of ``columns``: exact in every type."""
    rows, columns = (np.eye(a)[np.arange(b) * a // b] for a, b in zip(size, t.feature.size, strict=True))
    wide = t.op("MatMul", x, t.constant(columns.T[None, None], "columns"))
    return t.op("MatMul", t.constant(rows[None, None], "rows"), wide)


def _dynamic(t: GraphWriter, x: gs.Variable) -> gs.Variable:
    if t.opset < 11:
        raise BlockError(
            f"{t.feature.label} has a dynamic height or width, and resizing to it needs opset 11; "
            f"the model has {t.opset}"
        )
    return t.op("Resize", x, _no_roi(t), _no_scales(t), t.op("Shape", t.x, dtype=TensorProto.INT64), **_MODES)


def _no_roi(t: GraphWriter) -> gs.Tensor:
    """The unused region of interest: left out where the opset allows it, empty before opset 13."""
    return gs.Variable.empty() if t.opset >= 13 else t.floats([], "roi")


def _no_scales(t: GraphWriter) -> gs.Tensor:
    """The scales where sizes are given: left out or empty, likewise."""
    return gs.Variable.empty() if t.opset >= 13 else t.floats([], "scales")
