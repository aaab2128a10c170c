"""The channel shuffle: the channels of g groups dealt out in turn, out[j * g + i] = in[i * C/g + j]."""

from __future__ import annotations

import numpy as np

from graphsurgery.blocks import FeatureMap, Template, Variable

TRANSPOSE, GATHER = "transpose", "gather"


def lowerings(feature: FeatureMap) -> tuple[str, ...]:
    """How channels can be shuffled here: a transposition needs two shapes, a selection none."""
    return (TRANSPOSE, GATHER) if feature.static else (GATHER,)


def shuffle(t: Template, x: Variable, groups: int, lowering: str) -> Variable:
    """x [N, C, H, W] with its channels shuffled."""
    channels = t.feature.channels
    if lowering == GATHER:
        order = np.arange(channels).reshape(groups, -1).T.reshape(-1)
        return t.op("Gather", x, t.integers(order.tolist(), "order"), axis=1)
    parts = t.op("Reshape", x, t.integers([0, groups, channels // groups, t.feature.area], "parts"))
    dealt = t.op("Transpose", parts, perm=[0, 2, 1, 3])
    return t.op("Reshape", dealt, t.integers([0, channels, *t.feature.size], "shape"))
