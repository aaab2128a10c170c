"""Token paths: subgraphs that leave the feature map for tokens and come from exactly one map."""

from __future__ import annotations

from .graph_view import View
from .strides import Strides

_MOST = 500  # nodes


def made_beyond(view: View, plane: Strides, tensor: str) -> tuple[set[int], str] | None:
    """The nodes between a tensor and the only map in the image plane that it is made from, and that map."""
    taken: set[int] = set()
    sources: set[str] = set()
    pending = [tensor]
    while pending:
        name = pending.pop()
        position = view.producer(name)
        if name != tensor and plane.is_in(name):
            sources.add(name)
        elif position is None or position not in view.active:
            return None
        elif position not in taken:
            taken.add(position)
            pending += view.inputs(position)
        if len(sources) > 1 or len(taken) > _MOST:
            return None
    return (taken, sources.pop()) if sources else None
