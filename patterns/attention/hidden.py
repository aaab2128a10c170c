"""The hidden width of a gate: its channels over a reduction."""

from __future__ import annotations

from graphsurgery.blocks.block import Block
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap


def hidden_width(block: Block, feature: FeatureMap) -> int:
    """The setting ``hidden`` of a block, or else the channels over its ``reduction``, rounded down."""
    return int(block.values["hidden"] or feature.channels // int(block.values["reduction"] or 1))


def rounded_up(channels: int, reduction: int) -> int:
    """The channels over a reduction as timm has it: half rounded up, and at least one."""
    return max(1, int(channels / reduction + 0.5))


def require_hidden(width: int, reduction: object, feature: FeatureMap) -> None:
    """BlockError where a reduction leaves no hidden channel."""
    if width < 1:
        raise BlockError(
            f"{feature.label} has {feature.channels} channels; a reduction of {reduction} leaves no hidden channel"
        )
