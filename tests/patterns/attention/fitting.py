"""A block with arrays as its weights, fitted as those of a weights file are."""

from __future__ import annotations

from collections.abc import Mapping

from graphsurgery import weights
from graphsurgery.blocks.block import Array, Block
from graphsurgery.feature_map import FeatureMap


def fit(block: Block, feature: FeatureMap, arrays: Mapping[str, Array]) -> tuple[Block, dict[str, Array]]:
    """The block with the hyper-parameters that the weights imply, and the weights by official key."""
    result = weights.fitted(block, feature, weights.Checkpoint("a file", arrays), {})
    return result.block, result.arrays
