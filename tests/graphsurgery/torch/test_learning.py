"""Which blocks can never be trained from an identity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.blocks.block import Block
from graphsurgery.blocks.state_dict import load_weights
from graphsurgery.cards.listing import in_order_of_demand, variants
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.torch.learning import learns

FEATURE = FeatureMap(128, 14, 14)
BLOCKS = [block for kind in in_order_of_demand() for block in variants(kind)]


def identity(block: Block) -> torch.nn.Module | None:
    """The block as its identity; None where it has none."""
    try:
        block.check(FEATURE)
        weights = block.identity(FEATURE)
    except BlockError:
        return None
    module = block.module(FEATURE)
    load_weights(module, weights)
    return module


def test_saturated_identities_never_learn_and_the_cards_know_which() -> None:
    identities = {block: module for block in BLOCKS if (module := identity(block)) is not None}
    learn = {block.spelled: learns(module, FEATURE) for block, module in identities.items()}
    assert learn == {block.spelled: block.learns_from_identity for block in identities}
    assert (len(learn), sum(learn.values())) == (55, 23)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.spelled)
def test_every_block_with_weights_learns_from_its_own_start(block: Block) -> None:
    torch.manual_seed(0)
    block.check(FEATURE)
    module = block.module(FEATURE)
    load_weights(module, block.initial(FEATURE, np.random.default_rng(0)))
    assert learns(module, FEATURE) == any(True for _ in module.parameters())
