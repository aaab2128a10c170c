"""settings: which numbers of heads are tried is what the softmaxes of a part leave open, and the right one is among
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from graphsurgery.feature_map import FeatureMap
from graphsurgery.find.settings import may_be_heads

MAP = FeatureMap(64, 16, 16, batch=1)
DYNAMIC = FeatureMap(64, None, None, batch=1)
UP_TO = range(1, 17)


def heads(softmaxes: Sequence[tuple[int, int, int]], feature: FeatureMap) -> list[int]:
    """Those of 1 to 16 that (matrices, rows, length of a row) leave."""
    return [each for each in UP_TO if may_be_heads(each, softmaxes, feature)]


@pytest.mark.parametrize(
    ("softmaxes", "feature", "left"),
    [
        pytest.param(
            [(8, 256, 256)], MAP, [2, 4, 8], id="of the whole map, or of windows padded up to four times its area"
        ),
        pytest.param([(8, 8, 8)], MAP, [8], id="of the channels: rows are no positions"),
        pytest.param([(64, 16, 16)], MAP, [1, 2, 4], id="of windows: they cover the map, up to its padded size"),
        pytest.param([(4, 49, 49)], FeatureMap(64, 7, 7, batch=1), [1, 2, 4], id="of windows or whole: both are tried"),
        pytest.param([(18, 64, 64)], FeatureMap(64, 20, 20, batch=1), [1, 2], id="of padded windows"),
        pytest.param([(5, 256, 256)], MAP, [5], id="of the whole map: five windows would be too many"),
        pytest.param([(12, 49, 49)], DYNAMIC, [1, 2, 3, 4, 6, 12], id="of a dynamic map: what divides the matrices"),
        pytest.param([(3, 9, 9), (8, 256, 256)], MAP, [2, 3, 4, 8], id="one of several softmaxes is enough"),
    ],
)
def test_heads_that_are_left(
    softmaxes: Sequence[tuple[int, int, int]], feature: FeatureMap, left: Sequence[int]
) -> None:
    assert heads(softmaxes, feature) == left


@pytest.mark.parametrize("right", [1, 2, 4, 8])
@pytest.mark.parametrize("side", [4, 7, 8, 16])
def test_the_right_number_is_never_left_out(right: int, side: int) -> None:
    """Of the whole map, and of windows of a side, with the map padded to a multiple of it."""
    windows = (-(-MAP.size[0] // side)) ** 2
    assert may_be_heads(right, [(right, 256, 256)], MAP)
    assert may_be_heads(right, [(right * windows, side * side, side * side)], MAP)
