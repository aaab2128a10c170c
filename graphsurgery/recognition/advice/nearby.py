"""Nearby: the maps around a tensor that may be better places."""

from __future__ import annotations

from .objection import Spot

_FAR = 200
"""nodes that are looked at"""
_MOST = 6
"""maps upstream of a tensor"""


def leaves_plane(spot: Spot, node_index: int) -> bool:
    """Whether a node leaves the plane, and not for the mean of a gate."""
    view = spot.view
    return not any(map(spot.tree.is_map, view.outputs(node_index))) and not view.op(node_index).startswith(
        ("Global", "Reduce")
    )


def maps_upstream(spot: Spot) -> tuple[str, ...]:
    """The nearest maps that a tensor is made of."""
    view, found, pending, seen = spot.view, list[str](), [spot.root], {spot.root}
    while pending and len(seen) < _FAR and len(found) < _MOST:
        node_index = view.producer(pending.pop(0))
        for name in view.inputs(node_index) if node_index is not None and node_index in view.active else ():
            if name not in seen:
                seen.add(name)
                if spot.tree.is_map(name):
                    found.append(spot.outlet(name))
                else:
                    pending.append(name)
    return tuple(found)


def first_features(spot: Spot) -> tuple[str, ...]:
    """What the first operators give that compute features of an image."""
    view, pending, seen, found = spot.view, [spot.root], {spot.root}, list[str]()
    while pending and len(seen) < _FAR:
        for node_index in view.consumers(pending.pop(0)):
            leaf = spot.tree.innermost(node_index)
            for name in [leaf.root] if leaf is not None else view.outputs(node_index):
                if name in seen:
                    continue
                seen.add(name)
                if name in spot.survey.prepared:
                    pending.append(name)
                else:
                    found.append(spot.outlet(name))
    return tuple(found)
