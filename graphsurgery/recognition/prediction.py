"""Prediction: what a head gives, by which patterns tell a detector's head from what ends other networks."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass

from ..graph.shapes import tensor_type
from .graph_view import View
from .input_images import CONVOLUTIONS


@dataclass(frozen=True)
class Prediction:
    """What a head gives."""

    operators: frozenset[str]
    """those of its nodes"""
    outputs: tuple[str, ...] = ()
    """the model's outputs that it computes"""
    strides: frozenset[int] = frozenset()
    """those of the maps that are predicted on"""
    widths: frozenset[int] = frozenset()
    """channels of the convolutions behind which there is no other"""
    boxes: bool = False
    """whether one of several outputs ends in an axis of four numbers"""


def predict(view: View, nodes: Set[int], strides: Collection[int | None] = ()) -> Prediction:
    """What the nodes of a head give, on maps of these strides."""
    outputs = tuple(name for p in sorted(nodes) for name in view.outputs(p) if view.is_output(name))
    return Prediction(
        operators=frozenset(map(view.op, nodes)),
        outputs=outputs,
        strides=frozenset(stride for stride in strides if stride is not None),
        widths=frozenset(shape[0] for p in _last_convolutions(view, nodes) if (shape := view.weight_shape(p))),
        boxes=len(outputs) > 1 and any(_last_size(view, name) == 4 for name in outputs),
    )


def _last_convolutions(view: View, nodes: Set[int]) -> list[int]:
    """The convolutions that no other one of the nodes is downstream of."""
    leading: set[int] = set()
    found = []
    for node_index in sorted(nodes, key=view.place.__getitem__, reverse=True):
        convolves = view.op(node_index) in CONVOLUTIONS
        behind = not leading.isdisjoint(view.downstream(node_index))
        if convolves and not behind:
            found.append(node_index)
        if convolves or behind:
            leading.add(node_index)
    return found


def _last_size(view: View, output: str) -> object:
    """The size of an output's last axis, as far as the model declares it."""
    declared = view.index.outputs.get(output)
    shape = tensor_type(declared.type)[1] if declared is not None else None
    return shape[-1] if shape else None
