"""Why no block can be put at a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import prod

from onnx import TensorProto

from ..errors import SiteError, option
from ..feature_map import Dimension, float_dtype
from ..graph import quantisation
from ..graph.layouts import NCHWC
from ..graph.weight_channels import weight_channels
from ..messages import shape_text
from ..modelfile import limits
from . import quantised_sites
from .context import Context, tensor_selectors

_FAR = 500  # tensors that are looked at for a hint
_MOST = 4  # maps that a hint names


def refusal(context: Context, tensor: str, described: Callable[[], str]) -> SiteError | None:
    """The error that says why no block can be put at a tensor, which messages call what ``described`` gives; None
    where one can.
    """
    return next(_refusals(context, tensor, described), None)


def _refusals(context: Context, tensor: str, described: Callable[[], str]) -> Iterator[SiteError]:
    """One error for each reason; what follows the first may suppose what it denies."""
    if not context.index.is_activation(tensor):
        yield SiteError(f"{described()} is a constant (a weight), not an activation; a block goes behind an activation")
    shape, is_map = context.shapes.lookup(tensor)[1], context.is_map(tensor)
    if not is_map:
        yield from _no_feature_map(context, tensor, described)
    shown = partial(_shown, described, shape)
    channels = shape[1] if shape is not None else None
    found = weight_channels(context.index, tensor)
    if found is not None and channels != found[0]:
        told = f"the weights of {found[1]} give it {found[0]} channels"
        yield SiteError(f"{shown()} as the model declares it, and {told}")
    if isinstance(channels, int) and channels > limits.CHANNELS:
        yield SiteError(f"{shown()}; a block is put on at most {limits.CHANNELS:,} channels")
    if prod([size for size in shape or () if isinstance(size, int)]) > limits.ELEMENTS:
        yield SiteError(f"{shown()}, which no runtime can hold: a tensor has at most {limits.ELEMENTS:,} elements")
    if not is_map:
        image = f"no map of the image {shape_text(context.image)}"
        sentence = f"{shown()}, which is {image}: it is an intermediate result of a head or of an attention"
        yield _with_maps(context, tensor, sentence)


def _no_feature_map(context: Context, tensor: str, described: Callable[[], str]) -> Iterator[SiteError]:
    """Why a tensor is not known to be a float map [N, C, H, W]."""
    if not context.shapes.is_tensor(tensor):
        yield SiteError(f"{described()} is no tensor, but a sequence or the like; a block needs a float tensor")
    kind, shape = context.shapes.lookup(tensor)
    if not float_dtype(kind) and quantisation.holds_integers(context.index, tensor):
        yield quantised_sites.no_integers(context, tensor, described())
    if kind and not float_dtype(kind):
        held = TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else f"type {kind}"
        yield SiteError(f"{described()} holds {held} values; a block needs a float tensor")
    if (layout := context.layouts.foreign(tensor)) is not None:
        yield _in_another_layout(context, tensor, described(), layout)
    if not kind and shape is not None:
        unknown = f"the element type of {described()} is not in the model and could not be inferred"
        unknown += _stopped(context, tensor)
        yield SiteError(f"{unknown}; a block needs to know it: declare the tensor in the model")
    if not kind or shape is None:
        unknown = f"the shape of {described()} is not in the model and could not be inferred{_stopped(context, tensor)}"
        yield SiteError(f"{unknown}; a block needs to know it: {_given(tensor)}")
    if shape is not None and len(shape) != 4:
        yield _with_maps(context, tensor, f"{_shown(described, shape)}; a block needs [N, C, H, W]")
    if not context.shapes.is_feature_map(tensor):
        unknown = f"the number of channels of {described()} is not fixed in the model{_stopped(context, tensor)}"
        yield SiteError(f"{unknown}; a block needs to know it: {_given(tensor)}")
    if (origin := context.layouts.moved(tensor)) is not None:
        yield _of_moved_channels(context, tensor, _shown(described, shape), origin)


def _shown(described: Callable[[], str], shape: Iterable[Dimension] | None) -> str:
    """How messages call a tensor, and its shape."""
    return f"{described()} has the shape {shape_text(shape or ())}"


def _stopped(context: Context, tensor: str) -> str:
    """Behind which node shapes are not known, as a part of a sentence; "" where that is not the reason."""
    node_index = context.shapes.stops(tensor)
    if node_index is None:
        return ""
    node = context.index.nodes[node_index]
    return f", as shapes stop at the node {context.index.label(node_index)!r} ({node.op_type})"


def _given(tensor: str) -> str:
    """How to say the shape of a tensor."""
    return f"say it with {option('shapes', f'{tensor}=1x64x80x80')}, ? for a size that varies"


def _in_another_layout(context: Context, tensor: str, what: str, layout: str) -> SiteError:
    """The error for a tensor that is not NCHW: which NCHW tensor holds the same, or what to do instead."""
    layouts, shape = context.layouts, context.shapes.lookup(tensor)[1]
    shown = f"{what} is {layout}{f' {shape_text(shape)}' if shape is not None else ''}"
    if layout == NCHWC:
        shown += ", the layout that onnxruntime's optimiser makes for one kind of processor"
    sentence = f"{shown}; a block needs [N, C, H, W]"
    upstream, downstream = layouts.upstream_map(tensor), layouts.downstream_maps(tensor)
    if same := tensor_selectors(filter(context.is_map, filter(None, [upstream, *downstream]))):
        readers = len(context.index.consumers.get(tensor, ())) + (tensor in context.index.outputs)
        partly = not upstream and readers > len(downstream)
        is_it = "its NCHW map" if len(same) == 1 else "its NCHW maps"
        is_it += f" for {len(downstream)} of its {readers} consumers" if partly else ""
        verb = "is" if len(same) == 1 else "are"
        return SiteError(f"{sentence}; {is_it} {verb} {context.listed(same, 4)}", candidates=tuple(same)[:4])
    if layout == NCHWC:
        return SiteError(f"{sentence}: insert into the model before it is optimised, and optimise the result")
    return _with_maps(context, tensor, sentence)


def _of_moved_channels(context: Context, tensor: str, shown: str, origin: str) -> SiteError:
    """The error for a tensor that is made of another one whose channels are not the second axis."""
    layout, node_index = context.layouts.foreign(origin), context.index.producer.get(origin)
    found = f"{origin!r}, which is {layout}" if layout else f"{origin!r}, whose channels are not its second axis"
    if layout is None and node_index is not None:
        found += f" behind the node {context.index.label(node_index)!r}"
    sentence = f"{shown}, of which it cannot be told that it is [N, C, H, W]: it is computed from {found}"
    return _with_maps(context, tensor, sentence)


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
