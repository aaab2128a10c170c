"""Which tensors of unknown layout are computed from channels that are not the second axis: NHWC maps, or tokens.

Reshape, Einsum and the like end a layout. What comes from NCHW through them is taken for NCHW where it has four axes;
of what comes from an NHWC map or from tokens [N, L, C], nobody can say so. Nor of what comes from an image
[N, H, W, 3], if no operator tells its layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx

from ..feature_map import channels_first
from ..modelfile.operators import operator
from ..modelfile.subgraphs import nested
from . import layout_operators
from .index import GraphIndex

_SIZES = frozenset({"Shape", "Size"})
_ROWS = frozenset({"Einsum", "Gemm", *layout_operators.LINEAR})
"""operators whose first activation gives the rows of the result"""
_FIRST = frozenset({"Compress", "Expand", "Flatten", "Gather", "GatherND", "Reshape", "Squeeze", "TopK", "Unsqueeze"})
"""operators whose first input alone is data"""
_SCATTERING = frozenset({"Scatter", "ScatterElements", "ScatterND"})
"""operators whose second input are indices"""


def moved_channels(index: GraphIndex, known: Callable[[str], bool | None]) -> dict[str, str]:
    """Tensor of unknown layout -> the tensor upstream whose channels are not its second axis.

    ``known``: whether a tensor has its channels first; None where its layout is not known.
    """
    found = {name: name for name in index.free_inputs if known(name) is None and is_image_last(index, name)}

    def source(name: str) -> str | None:
        is_first = known(name)
        return found.get(name) if is_first is None else None if is_first else name

    for node_index in sorted(index.active):
        node = index.nodes[node_index]
        origin = _transposed(node, source) if operator(node) == "Transpose" else _computed(index, node_index, source)
        if origin is not None:
            found.update((name, origin) for name in node.output if name and known(name) is None)
    return found


def is_image_last(index: GraphIndex, name: str) -> bool:
    """Whether an input has the sizes of an image [N, H, W, 3]."""
    sizes = [dim.dim_value for dim in index.inputs[name].type.tensor_type.shape.dim]
    return len(sizes) == 4 and sizes[3] == 3 and channels_first(tuple(sizes)) != tuple(sizes)


def takes_away(node: onnx.NodeProto) -> bool:
    """Whether a Transpose makes the second axis the last one: NHWC of NCHW, tokens of channels."""
    moved = layout_operators.permutation(node) or ()
    return len(moved) > 2 and moved in ((0, *range(2, len(moved)), 1), (2, 0, 1))


def _brings_back(node: onnx.NodeProto) -> bool:
    """Whether a Transpose makes the last axis the second one."""
    moved = layout_operators.permutation(node) or ()
    return len(moved) > 2 and moved in ((0, len(moved) - 1, *range(1, len(moved) - 1)), (1, 2, 0))


def _transposed(node: onnx.NodeProto, source: Callable[[str], str | None]) -> str | None:
    origin = source(node.input[0]) if node.input else None
    if origin is None:
        return node.output[0] if takes_away(node) and node.output else None
    return None if _brings_back(node) else origin


def _computed(index: GraphIndex, node_index: int, source: Callable[[str], str | None]) -> str | None:
    node = index.nodes[node_index]
    if _ends_in_one_channel(node, index) or any(takes_away(inner) for graph in nested(node) for inner in graph.node):
        return next(filter(None, node.output), None)
    return next(filter(None, map(source, _data(index, node_index))), None)


def _ends_in_one_channel(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether a Reshape makes [N, H, W, 1] of a map: exporters write it for a Transpose of a single channel."""
    if operator(node) != "Reshape" or len(node.input) < 2 or not node.output:
        return False
    sizes = layout_operators.numbers(node, index, 1)
    return len(sizes) == 4 and sizes[3] == 1 and sizes[1] != 1 and sizes[2] != 1


def _data(index: GraphIndex, node_index: int) -> Iterator[str]:
    """The tensors that decide where the channels of what a node gives are."""
    node = index.nodes[node_index]
    kind, names = operator(node), list(node.input)
    if kind in _SIZES:
        return
    if kind in _ROWS:
        yield from [name for name in names if index.is_activation(name)][:1]
    elif kind in _SCATTERING:
        yield from (names[0], *names[2:])
    elif kind in _FIRST:
        yield from names[:1]
    elif layout_operators.keeps(node, index):
        yield from layout_operators.data_inputs(node)
    else:
        yield from sorted(index.reads(node_index))
