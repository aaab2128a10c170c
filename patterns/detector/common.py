"""What several patterns ask of their parts."""

from __future__ import annotations

from collections.abc import Callable

from graphsurgery.recognition import Expression, Part, RecognisedBlock

Link = Callable[[Expression, str], Expression]


def narrow(conv: RecognisedBlock) -> bool:
    """Whether a convolution has a 1x1 kernel, at any stride."""
    return conv.facts.get("kernel") == (1, 1)


def pointwise(conv: RecognisedBlock) -> bool:
    """Whether a convolution has a 1x1 kernel and stride 1."""
    return narrow(conv) and unstrided(conv)


def active(conv: RecognisedBlock) -> bool:
    """Whether a convolution ends with an activation."""
    return conv.facts.get("activation") is not None


def linear(conv: RecognisedBlock) -> bool:
    """Whether a convolution ends without an activation."""
    return not active(conv)


def unstrided(conv: RecognisedBlock) -> bool:
    """Whether a convolution keeps the size of the map."""
    return conv.facts.get("stride") == (1, 1)


def spatial(conv: RecognisedBlock) -> bool:
    """Whether a convolution looks at more than one position."""
    return conv.facts.get("kernel") not in ((1, 1), None)


def part(block: RecognisedBlock, name: str) -> RecognisedBlock:
    """A part by its name."""
    return dict(block.parts)[name]


def link(*types: str) -> Link:
    """The step of a chain: one block of any of these types."""
    return lambda previous, name: Part(name, types, previous)
