"""Nearest-neighbour resizing that picks exactly the neighbours that torch picks, at every opset.

torch: source = floor(target * in / out). ONNX runtimes compute floor(target / scale) in float32, which can fall on
the wrong side of a whole number; so the scale is searched for that gives every index and the output size right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs

from .errors import BlockError

if TYPE_CHECKING:
    from .template import Template


def resize(t: Template, x: gs.Tensor, size: tuple[int, int] | None) -> gs.Variable:
    """``x`` [N, C, h, w] at the site's height and width; ``size`` is (h, w), None where the site's own is dynamic."""
    if not t.feature.static:
        return _dynamic(t, x)
    assert size is not None
    scales = [exact_scale(a, b) for a, b in zip(size, t.feature.size, strict=True)]
    if None in scales:
        raise BlockError(f"no exact nearest-neighbour resize from {size} to {t.feature.size} exists before opset 11")
    vector = t.floats([1.0, 1.0, *(float(s) for s in scales if s is not None)], "scales")
    if t.opset == 9:
        return t.op("Upsample", x, vector, mode="nearest")
    if t.opset == 10:
        return t.op("Resize", x, vector, mode="nearest")
    return t.op("Resize", x, _no_roi(t), vector, **_MODES)


def exact_scale(source: int, target: int) -> float | None:
    """A float32 scale under which every index of a resize from ``source`` to ``target`` is exact; None if none is
    near.
    """
    indices = np.arange(target, dtype=np.int64)
    wanted = indices * source // target
    scale = np.float32(target / source)
    candidates = [scale, np.nextafter(scale, np.float32(0)), np.nextafter(scale, np.float32(np.inf))]
    for candidate in candidates:
        found = np.floor(indices.astype(np.float32) / candidate).astype(np.int64)
        if int(np.float32(source) * candidate) == target and np.array_equal(found, wanted):
            return float(candidate)
    return None


_MODES: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def _no_roi(t: Template) -> gs.Tensor:
    """The unused region of interest: left out where the opset allows it, empty before opset 13."""
    return gs.Variable.empty() if t.opset >= 13 else t.floats([], "roi")


def _dynamic(t: Template, x: gs.Tensor) -> gs.Variable:
    if t.opset < 11:
        raise BlockError(
            f"{t.feature.label} has a dynamic height or width, "
            f"and resizing to it needs opset 11; the model has {t.opset}"
        )
    sizes = t.op("Shape", t.x, dtype=7)
    empty = gs.Variable.empty() if t.opset >= 13 else t.floats([], "scales")
    return t.op("Resize", x, _no_roi(t), empty, sizes, **_MODES)
