"""What attention over very many positions takes, told before it is inserted or run."""

from __future__ import annotations

from collections.abc import Callable
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
    return _said(block.cost_warning, feature, stride) if block.is_quadratic else ""


def announcement(block: Block, feature: FeatureMap, stride: int | None) -> str:
    """How large the scores are that a block will compute, for before it is inserted; "" for one whose scores do not
    grow with the square of the map, or that cannot work there.
    """
    try:
        block.check(feature)
    except BlockError:  # which is said when the insertion is planned
        return ""
    if not block.is_quadratic or feature.static:
        return block.cost(feature)
    usual = _said(block.cost, feature, stride)
    grows = f"{block.spelled} attends to the whole map: its scores grow with (H x W)^2"
    return f"{grows}; {usual}" if usual else grows


def _said(cost: Callable[[FeatureMap], str], feature: FeatureMap, stride: int | None) -> str:
    """Of a map of dynamic size, the same for the image that a model is run with."""
    if feature.static or stride is None:
        return cost(feature)
    from .activations import IMAGE_SIDES

    side = -(-IMAGE_SIDES[0] // stride)  # convolutions with a stride round up
    found = cost(replace(feature, height=feature.height or side, width=feature.width or side))
    return f"with an image of {IMAGE_SIDES[0]} x {IMAGE_SIDES[0]}, {found}" if found else ""


def cost_of(insertion: Insertion) -> str:
    """The same of a recorded insertion; "" for a block that is not installed here."""
    try:
        return cost_warning(block_of(insertion), insertion.feature, insertion.site.stride)
    except (BlockError, MissingDependency):
        return ""
