"""The hidden width of a gate, and what a block demands of the size of its map."""

from __future__ import annotations

from graphsurgery.blocks import Block, BlockError, FeatureMap
from graphsurgery.errors import option
from graphsurgery.messages import brief


def rounded_up(channels: int, reduction: int) -> int:
    """The channels over a reduction as timm has it: half rounded up, and at least one."""
    return max(1, int(channels / reduction + 0.5))


def require_hidden(width: int, reduction: object, feature: FeatureMap) -> None:
    """BlockError where a reduction leaves no hidden channel."""
    if width < 1:
        raise BlockError(
            f"{feature.label} has {feature.channels} channels; a reduction of {reduction} leaves no hidden channel"
        )


def require_divisor(feature: FeatureMap, count: int, parts: str) -> None:
    """BlockError where the channels cannot be divided into that many heads, or groups."""
    if feature.channels % count:
        raise BlockError(f"{feature.label} has {feature.channels} channels, which {count} {parts} do not divide")


def require_positions(block: Block, feature: FeatureMap, what: str) -> None:
    """BlockError for a map of one position, where a deviation would be 0/0."""
    if feature.static and feature.area == 1:
        raise BlockError(
            f"{block.name} needs more than one position, and {feature.label} is 1 x 1: {what} would be 0/0"
        )


def require_static(feature: FeatureMap, what: str, hint: str = "") -> None:
    """BlockError where height or width is dynamic; ``what``: what of the block depends on them."""
    if not feature.static:
        known = f"if they never vary, give them with {option('shapes', 'TENSOR=1x64x80x80')}"
        raise BlockError(f"{what}, and {feature.label} has a dynamic height or width{hint}; {known}")


def odd_sizes(block: Block, setting: str, like: str, count: int | None = None) -> list[int]:
    """The kernels that a setting lists: "3,5,7". BlockError where they are not odd, or not as many.

    ``like``: an example; ``count``: how many there have to be, else at least two.
    """
    given = block.text(setting)
    parts = [part.strip() for part in given.split(",")]
    sizes = [int(part) for part in parts if part.isdecimal()]
    enough = len(sizes) == count if count else len(sizes) > 1
    if not enough or len(sizes) < len(parts) or any(size % 2 == 0 for size in sizes):
        number = {4: "four "}.get(count or 0, "")
        what = f"{setting} of {block.name} is {number}odd numbers as in {like}, not {brief(given)}"
        raise BlockError(what, option="settings")
    return sizes


def require_odd(block: Block, setting: str, value: int, else_what: str = "") -> None:
    """BlockError for an even kernel; ``else_what``: what that would do."""
    if value % 2 == 0:
        raise BlockError(f"{setting} of {block.name} is odd, not {value}{else_what}")
