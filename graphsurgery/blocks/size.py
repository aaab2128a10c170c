"""How many weights a block may have: looked at before they are drawn, read or written."""

from __future__ import annotations

from math import prod

from ..errors import BlockError
from ..feature_map import FeatureMap
from ..modelfile import limits
from .block import Block


def check_size(block: Block, feature: FeatureMap) -> None:
    """BlockError for a block with more weights at a feature map than any has."""
    count = sum(map(prod, block.parameters(feature).values()))
    if count > limits.WEIGHT_ELEMENTS:
        raise BlockError(
            f"{block.spelled} would have {count:,} weights at {feature.label}, with {feature.channels:,} channels; "
            f"at most {limits.WEIGHT_ELEMENTS:,} are written"
        )
