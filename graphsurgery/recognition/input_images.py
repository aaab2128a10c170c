"""Images: what a model sees, and at which stride each begins where there are several: a camera's and a thermal one's.

An image is an input, or what an input is resized to before the first convolution. The largest that a convolution or
pooling begins at is the reference, at stride 1; one of half its height and width begins at stride 2, as if it had been
computed from it. Where a size is not known, an image counts as one of the size of the reference.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TypeAlias

from ..feature_map import Dimension, channels_first
from ..graph.shapes import ShapeTable, tensor_type
from .graph_view import View

Stride: TypeAlias = tuple[Fraction, Fraction]
"""image height over the map's, image width over the map's"""
Size: TypeAlias = tuple[int, int]
"""height and width"""

WHOLE: Stride = (Fraction(1), Fraction(1))
CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "FusedConv", "NhwcFusedConv", "DeformConv"})
POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
_POINT: Size = (1, 1)
_BEGINNINGS = CONVOLUTIONS | POOLS | {"ConvTranspose"}


class Images:
    """The images of one model, and the other values that enter it."""

    def __init__(self, view: View, shapes: ShapeTable | None) -> None:
        inputs = view.index.free_inputs
        declared = {name: tensor_type(view.index.inputs[name].type)[1] for name in inputs if shapes is not None}
        self._shapeless = {name for name, shape in declared.items() if shape is not None and len(shape) != 4}
        sizes = {name: _image_size(view, name, declared.get(name)) for name in inputs}
        begun: set[str] = set()
        resized: set[str] = set()
        images_of = {name: frozenset({name}) for name in inputs}
        """what is computed without a convolution or pooling -> the images that it is computed from"""
        for node_index in view.order:
            read = view.inputs(node_index)
            if not read or any(name not in images_of for name in read):
                continue
            images = frozenset[str]().union(*(images_of[name] for name in read))
            if view.op(node_index) in _BEGINNINGS:
                begun |= images
            elif view.op(node_index) == "Resize":
                resized |= images
                for name in view.outputs(node_index):
                    images_of[name] = frozenset({name})
                    sizes[name] = _image_size(view, name, shapes.lookup(name)[1]) if shapes is not None else None
            else:
                images_of.update(dict.fromkeys(view.outputs(node_index), images))
        known = {name: size for name, size in sizes.items() if size is not None}
        largest = max((size for name, size in known.items() if name in begun), key=math.prod, default=None)
        self.reference = largest if begun else next(iter(known.values()), None)
        """height and width of the image at stride 1"""
        self._sizes = {name: size for name, size in known.items() if name in begun or name not in resized}

    def stride(self, image: str) -> Stride | None:
        """The stride at which an input begins, or what one is resized to; None for one without height and width."""
        size, whole = self._sizes.get(image), self.reference
        if image in self._shapeless or (size == _POINT != whole):
            return None
        return WHOLE if size is None or whole is None else (Fraction(whole[0], size[0]), Fraction(whole[1], size[1]))


def height_and_width(shape: tuple[Dimension, ...] | None) -> Size | None:
    """Height and width of [N, C, H, W] where both are known."""
    if shape is None or len(shape) != 4:
        return None
    height, width = shape[2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _image_size(view: View, tensor: str, shape: tuple[Dimension, ...] | None) -> Size | None:
    """Height and width of an image; sizes tell its layout only where no operator does."""
    if shape is not None and view.layouts.is_channels_last(tensor):
        return height_and_width(view.channels_first(tensor, shape))
    if shape is None or height_and_width(shape) == _POINT:  # not one of one row with the channels last
        return height_and_width(shape)
    return height_and_width(channels_first(shape))
