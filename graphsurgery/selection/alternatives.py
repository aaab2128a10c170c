"""Places of the main graph that take a block, in the stead of one inside of a node that holds others."""

from __future__ import annotations

from collections.abc import Iterable

from .context import Context, tensor_selectors
from .refusals import refusal

_FAR = 500  # nodes that are looked at on each side


def instead(context: Context, node_index: int) -> tuple[str, dict[str, str]]:
    """(what they are, selectors with their tensors) of the places nearest to a node that take a block: those right
    behind it; where none does, those further on, else those before it.
    """
    outputs = [name for name in context.index.nodes[node_index].output if name]
    if found := _taking(context, outputs):
        return "what the node puts out can be named", found
    if found := _further(context, outputs, upstream=False):
        return "the nearest place behind the node is", found
    inputs = sorted(context.index.reads(node_index))
    if found := _taking(context, inputs) or _further(context, inputs, upstream=True):
        return "the nearest place in front of the node is", found
    return "no place outside of the node takes a block", {}


def sentence(context: Context, node_index: int) -> str:
    """The same for a message."""
    said, places = instead(context, node_index)
    return f"{said}: {context.listed(places)}" if places else said


def _taking(context: Context, tensors: Iterable[str]) -> dict[str, str]:
    """The selectors of those tensors that a block can be put at; not the image itself."""
    index = context.index
    good = (name for name in tensors if name in index.producer and refusal(context, name, lambda: "") is None)
    return tensor_selectors(good)


def _further(context: Context, tensors: list[str], *, upstream: bool) -> dict[str, str]:
    """The first of the places that a search from some tensors meets."""
    index, pending, seen = context.index, list(tensors), set(tensors)
    while pending and len(seen) < _FAR:
        tensor = pending.pop(0)
        if upstream:
            producer = index.producer.get(tensor)
            names = sorted(index.reads(producer)) if producer is not None else []
        else:
            names = [name for n in index.consumers.get(tensor, ()) for name in index.nodes[n].output if name]
        fresh = [name for name in names if name not in seen]
        if found := _taking(context, fresh):
            return dict([next(iter(found.items()))])
        seen.update(fresh)
        pending += fresh
    return {}
