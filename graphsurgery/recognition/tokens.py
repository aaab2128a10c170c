"""Tokens: vision transformers, whose only map is what one convolution makes of the image, and what they make of it."""

from __future__ import annotations

from collections.abc import Sequence

from .extent import Extent
from .graph_view import View
from .input_images import CONVOLUTIONS
from .paths import Paths
from .strides import Strides

_LEAST = 4
"""the smallest stride of an embedding of patches; a convolution of stride 2 is a stem"""


def is_patch_embedding(view: View, strides: Strides, root: str) -> bool:
    """Whether a map is what one convolution makes of the image for a transformer, with its positions added perhaps:
    nothing that reads it stays a map.
    """
    producer = view.producer(root)
    if producer is not None and view.op(producer) == "Add" and len(inner := _maps(view, strides, producer)) == 1:
        producer = view.producer(inner[0])
    if producer is None or view.op(producer) not in CONVOLUTIONS or not strides.is_image(view.inputs(producer)[0]):
        return False
    stays = any(strides.is_in(name) for p in view.consumers(root) for name in view.outputs(p))
    return min(view.integers(producer, "strides") or (1,)) >= _LEAST and not stays


def _maps(view: View, strides: Strides, node_index: int) -> list[str]:
    return [name for name in view.inputs(node_index) if strides.is_in(name)]


def last_of_transformer(view: View, strides: Strides, paths: Paths, line: Sequence[Extent]) -> str | None:
    """The map that a vision transformer gives, where a line of extents, from its last, goes through one.

    Of those of several layers, side by side, that of the last layer.
    """
    maps = [extent for extent in line if strides.is_in(paths.output(extent))]
    if len(maps) < 2 or not is_patch_embedding(view, strides, paths.output(maps[-1])):
        return None
    first = maps[-2]
    return max(first.entries, key=lambda root: len(paths.upstream([root]))) if first.is_concat else paths.output(first)
