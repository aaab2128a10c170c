"""What is said of an attention before it is inserted, and of what its scores take."""

from __future__ import annotations

import pytest

from graphsurgery.feature_map import FeatureMap
from graphsurgery.insertion.cost import announcement, cost_warning
from graphsurgery.userblocks import make_block

MHSA = make_block("mhsa[yolo]")


def test_few_positions_are_announced_and_many_are_warned_of() -> None:
    few, many = FeatureMap(16, 20, 20), FeatureMap(16, 40, 40)
    said = "mhsa[yolo] attends over 400 positions (20 x 20): the score matrix of each head is 400 x 400, 0.64 MB"
    assert announcement(MHSA, few, 32) == f"{said} in float32"
    assert cost_warning(MHSA, few, 32) == ""
    assert announcement(MHSA, many, 16) == cost_warning(MHSA, many, 16) == MHSA.cost(many)
    assert "1,600 x 1,600, 10 MB in float32" in MHSA.cost(many)


def test_a_dynamic_size_is_announced_in_words() -> None:
    grows = "mhsa[yolo] attends to the whole map: its scores grow with (H x W)^2"
    assert announcement(MHSA, FeatureMap(16, None, None), None) == grows
    usual = f"with an image of 640 x 640, {MHSA.cost(FeatureMap(16, 20, 20))}"
    assert announcement(MHSA, FeatureMap(16, None, None), 32) == f"{grows}; {usual}"
    assert cost_warning(MHSA, FeatureMap(16, None, None), 32) == ""
    assert cost_warning(MHSA, FeatureMap(16, None, None), 8).startswith(
        "with an image of 640 x 640, mhsa[yolo] attends"
    )


@pytest.mark.parametrize("block", ["simam", "cbam", "swin", "aifi[efficient-additive]"])
def test_what_does_not_grow_is_not_announced(block: str) -> None:
    for side in (8, 80, None):
        assert announcement(make_block(block), FeatureMap(16, side, side), 8) == ""


def test_nothing_is_announced_where_a_block_cannot_work() -> None:
    assert announcement(make_block("bra[nchw]"), FeatureMap(16, 4, 4), 32) == ""
    assert announcement(make_block("dattention"), FeatureMap(16, None, None), 32) == ""
