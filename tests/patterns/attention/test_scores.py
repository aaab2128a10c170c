"""Blocks whose scores grow with the square of the map say so, and say how many there are."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from graphsurgery.blocks.block import Block
from graphsurgery.cards.listing import in_order_of_demand, variants
from graphsurgery.feature_map import FeatureMap
from graphsurgery.graph.work import Work
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.userblocks import make_block
from tests.patterns.attention.harness import build

VARIANTS = [block for kind in in_order_of_demand() for block in variants(kind)]


def largest(block: Block, site: FeatureMap) -> int:
    """Numbers in the largest tensor of a block."""
    found = Work.of(ModelFile.load(build(block.spelled, block.values, site).model)).largest()
    assert found is not None
    return prod(found.shape)


@pytest.mark.parametrize("block", [each for each in VARIANTS if each.is_quadratic], ids=lambda block: block.spelled)
def test_the_largest_tensor_is_that_of_the_scores(block: Block) -> None:
    site = replace(block.example(), height=42, width=56)
    numbers, (rows, columns) = largest(block, site), block.scores(42, 56)
    assert numbers % (rows * columns) == 0
    assert numbers // (rows * columns) <= 16  # heads, and two coordinates of a point
    matrix = f"{rows:,} x {columns:,}"
    assert block.cost(site).startswith(f"{block.spelled} attends over 2,352 positions (42 x 56): the score matrix of")
    assert matrix in block.cost(site)


@pytest.mark.long
@pytest.mark.parametrize("block", VARIANTS, ids=lambda block: block.spelled)
def test_no_other_block_grows_like_that(block: Block) -> None:
    small, large = (largest(block, replace(block.example(), height=side, width=side)) for side in (28, 56))
    assert (large > 8 * small) == block.is_quadratic


def test_scores_follow_the_settings() -> None:
    assert make_block("psablock[area]", {"area": 4}).scores(8, 8) == (64, 16)
    assert make_block("clo", {"window": 2}).scores(8, 9) == (72, 16)
    assert make_block("dattention", {"stride": 2}).scores(8, 8) == (64, 16)
    assert make_block("bra", {"windows": 4, "topk": 2}).scores(7, 8) == (64, 8)
    assert make_block("aifi[hilo]", {"window": 2}).scores(7, 8) == (64, 16)
    assert not make_block("aifi[hilo]", {"alpha": 0.0}).is_quadratic
    assert not make_block("aifi[efficient-additive]").is_quadratic
