"""Preparation: what is made of an image before anything computes features of it: scaled, padded, cut, resized."""

from __future__ import annotations

from ..graph_view import View

_PREPARING = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Neg", "Clip", "Min", "Max", "Round", "Floor", "BatchNormalization"}
    | {"InstanceNormalization", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "Sqrt"}
    | {"Pad", "Slice", "Split", "Gather", "Concat", "Resize", "SpaceToDepth", "Transpose", "Reshape", "Flatten"}
    | {"Squeeze", "Unsqueeze", "Expand", "Tile"}
)
_WIDEST = 16
"""channels of an image, of which some have more than three; an input with more is a map of another network"""


def prepared(view: View) -> set[str]:
    """The roots that are images, and those that are made of images alone before the first convolution or pooling."""
    found = {name for name in view.index.free_inputs if _is_image(view, name)}
    pending = [node_index for name in found for node_index in view.consumers(name)]
    while pending:
        node_index = pending.pop()
        new = set(view.outputs(node_index)) - found
        if new and view.op(node_index) in _PREPARING and found.issuperset(view.inputs(node_index)):
            found |= new
            pending += view.downstream(node_index)
    return found


def _is_image(view: View, name: str) -> bool:
    sizes = view.index.inputs[name].type.tensor_type.shape.dim
    channels = [sizes[axis].dim_value for axis in (1, 3)] if len(sizes) == 4 else []
    return any(0 < count <= _WIDEST for count in channels)
