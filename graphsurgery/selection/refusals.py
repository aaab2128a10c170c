"""Why no block can be put at a tensor: one check for each reason, asked in this order."""

from __future__ import annotations

from collections.abc import Callable

from onnx import TensorProto

from ..errors import SiteError
from ..feature_map import float_dtype
from ..graph import quantisation
from ..messages import shape_text
from . import quantised_sites
from .context import Context, tensor_selectors

_FAR = 500  # tensors that are looked at for a hint


def refusal(context: Context, tensor: str, what: str) -> SiteError | None:
    """The error that says why no block can be put at a tensor, which messages call ``what``; None where one can."""
    return next((error for check in _CHECKS if (error := check(context, tensor, what))), None)


def _constant(context: Context, tensor: str, what: str) -> SiteError | None:
    if context.index.is_activation(tensor):
        return None
    return SiteError(f"{what} is a constant (a weight), not an activation; a block goes behind an activation")


def _integers(context: Context, tensor: str, what: str) -> SiteError | None:
    kind = context.shapes.lookup(tensor)[0]
    if float_dtype(kind) or not quantisation.holds_integers(context.index, tensor):
        return None
    return quantised_sites.no_integers(context, tensor, what)


def _no_floats(context: Context, tensor: str, what: str) -> SiteError | None:
    kind = context.shapes.lookup(tensor)[0]
    if not kind or float_dtype(kind):
        return None
    held = TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else f"type {kind}"
    return SiteError(f"{what} holds {held} values; a block needs a float tensor")


def _unknown_shape(context: Context, tensor: str, what: str) -> SiteError | None:
    kind, shape = context.shapes.lookup(tensor)
    if kind and shape is not None:
        return None
    return SiteError(f"the shape of {what} is not in the model and could not be inferred; a block needs to know it")


def _no_four_dimensions(context: Context, tensor: str, what: str) -> SiteError | None:
    shape = context.shapes.lookup(tensor)[1] or ()
    if len(shape) == 4:
        return None
    return _with_maps(context, tensor, f"{what} has the shape {shape_text(shape)}; a block needs [N, C, H, W]")


def _dynamic_channels(context: Context, tensor: str, what: str) -> SiteError | None:
    if context.shapes.is_feature_map(tensor):
        return None
    return SiteError(f"the number of channels of {what} is not fixed in the model; a block needs to know it")


def _no_map_of_the_image(context: Context, tensor: str, what: str) -> SiteError | None:
    if context.is_map(tensor):
        return None
    shape = shape_text(context.shapes.lookup(tensor)[1] or ())
    image = f"no map of the image {shape_text(context.image)}"
    sentence = (
        f"{what} has the shape {shape}, which is {image}: it is an intermediate result of a head or of an attention"
    )
    return _with_maps(context, tensor, sentence)


_CHECKS: tuple[Callable[[Context, str, str], SiteError | None], ...] = (
    _constant,
    _integers,
    _no_floats,
    _unknown_shape,
    _no_four_dimensions,
    _dynamic_channels,
    _no_map_of_the_image,
)


def _with_maps(context: Context, tensor: str, sentence: str) -> SiteError:
    """The error with the nearest maps upstream of the tensor, if there are any."""
    index = context.index
    found, pending, seen = list[str](), [tensor], {tensor}
    while pending and len(seen) < _FAR:
        node_index = index.producer.get(pending.pop(0))
        for name in sorted(index.reads(node_index)) if node_index in index.active else ():
            if name in seen or index.is_constant(name):
                continue
            seen.add(name)
            (found if context.is_map(name) else pending).append(name)
    maps = tensor_selectors(found)
    hint = f"; the nearest maps that it is made from are {context.listed(maps, 4)}" if maps else ""
    return SiteError(sentence + hint, candidates=tuple(maps)[:4])
