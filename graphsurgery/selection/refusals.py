"""Why no block can be put at a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from onnx import TensorProto

from ..errors import SiteError
from ..feature_map import float_dtype
from ..graph import quantisation
from ..graph.weight_channels import weight_channels
from ..messages import shape_text
from ..modelfile import limits
from . import quantised_sites
from .context import Context, tensor_selectors

_FAR = 500  # tensors that are looked at for a hint
_MOST = 4  # maps that a hint names


def refusal(context: Context, tensor: str, what: str) -> SiteError | None:
    """The error that says why no block can be put at a tensor, which messages call ``what``; None where one can."""
    return next(_refusals(context, tensor, what), None)


def _refusals(context: Context, tensor: str, what: str) -> Iterator[SiteError]:
    """One error for each reason; what follows the first may suppose what it denies."""
    if not context.index.is_activation(tensor):
        yield SiteError(f"{what} is a constant (a weight), not an activation; a block goes behind an activation")
    kind, shape = context.shapes.lookup(tensor)
    if not float_dtype(kind) and quantisation.holds_integers(context.index, tensor):
        yield quantised_sites.no_integers(context, tensor, what)
    if kind and not float_dtype(kind):
        held = TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else f"type {kind}"
        yield SiteError(f"{what} holds {held} values; a block needs a float tensor")
    if not kind or shape is None:
        yield SiteError(f"the shape of {what} is not in the model and could not be inferred; a block needs to know it")
    shown = f"{what} has the shape {shape_text(shape or ())}"
    if shape is not None and len(shape) != 4:
        yield _with_maps(context, tensor, f"{shown}; a block needs [N, C, H, W]")
    if not context.shapes.is_feature_map(tensor):
        yield SiteError(f"the number of channels of {what} is not fixed in the model; a block needs to know it")
    channels = shape[1] if shape is not None else None
    found = weight_channels(context.index, tensor)
    if found is not None and channels != found[0]:
        yield SiteError(f"{shown} as the model declares it, and the weights of {found[1]} give it {found[0]} channels")
    if isinstance(channels, int) and channels > limits.CHANNELS:
        yield SiteError(f"{shown}; a block is put on at most {limits.CHANNELS:,} channels")
    if prod(size for size in shape or () if isinstance(size, int)) > limits.ELEMENTS:
        yield SiteError(f"{shown}, which no runtime can hold: a tensor has at most {limits.ELEMENTS:,} elements")
    if not context.is_map(tensor):
        image = f"no map of the image {shape_text(context.image)}"
        sentence = f"{shown}, which is {image}: it is an intermediate result of a head or of an attention"
        yield _with_maps(context, tensor, sentence)


def _with_maps(context: Context, tensor: str, sentence: str) -> SiteError:
    """The error with the nearest maps upstream of the tensor, if there are any."""
    suggestions = context.suggestions
    if suggestions.is_trying:
        return SiteError(sentence)
    found = suggestions.accepted(tensor_selectors(_maps_upstream(context, tensor)), use="after", most=_MOST)
    hint = f"; the nearest maps that it is made from are {context.listed(found)}" if found else ""
    return SiteError(sentence + hint, candidates=tuple(context.accepted(found)))


def _maps_upstream(context: Context, tensor: str) -> Iterator[str]:
    """The nearest maps that a tensor is made from."""
    index, blocks, pending, seen = context.index, context.blocks, [tensor], {tensor}
    while pending and len(seen) < _FAR:
        node_index = index.producer.get(pending.pop(0))
        for name in sorted(index.reads(node_index)) if node_index in index.active else ():
            if name in seen or index.is_constant(name):
                continue
            seen.add(name)
            if context.is_map(name) and blocks.is_map(blocks.view.root(name)):
                yield name
            else:
                pending.append(name)
