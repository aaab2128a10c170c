"""What attention over very many positions takes, told before anything is run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import BlockError, MissingDependency
from ..userblocks.inserted import block_of

if TYPE_CHECKING:
    from ..blocks.block import Block
    from ..feature_map import FeatureMap
    from ..modelfile.record import Insertion


def cost_warning(block: Block, feature: FeatureMap, stride: int | None) -> str:
    """What :meth:`.Block.cost_warning` says; where the size is dynamic, for the image that a model is run with."""
    if feature.static or stride is None:
        return block.cost_warning(feature)
    from .activations import IMAGE_SIDES

    side = -(-IMAGE_SIDES[0] // stride)  # convolutions with a stride round up
    usual = replace(feature, height=feature.height or side, width=feature.width or side)
    found = block.cost_warning(usual)
    return f"with an image of {IMAGE_SIDES[0]} x {IMAGE_SIDES[0]}, {found}" if found else ""


def cost_of(insertion: Insertion) -> str:
    """The same of a recorded insertion; "" for a block that is not installed here."""
    try:
        return cost_warning(block_of(insertion), insertion.feature, insertion.site.stride)
    except (BlockError, MissingDependency):
        return ""
