"""What single operators say of the layouts of tensors: those of maps fix them, others keep or move them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import onnx

from ..modelfile.operators import is_namesake, operator
from .index import GraphIndex

Layout: TypeAlias = tuple[int, ...]
"""for every axis of a tensor, which one it would be with the channels first; () where that is so already"""
CHANNELS_FIRST: Layout = ()
CHANNELS_LAST: Layout = (0, 2, 3, 1)
TO_CHANNELS_FIRST = (0, 3, 1, 2)
BLOCKED: Layout = (-1,)
"""NCHWc: the channels in blocks, each with its values side by side, as onnxruntime's optimiser stores them for a CPU"""

CHANGING = frozenset({"Transpose", "ReorderInput", "ReorderOutput"})
"""operators that give a tensor in another layout"""
_NCHWC_DOMAIN = "com.microsoft.nchwc"
_NHWC = re.compile("nhwc|channels_?last", re.IGNORECASE)
"""how operators are called that read and give NHWC, or their domains: ``NhwcMaxPool``, ``com.ms.internal.nhwc`` of
onnxruntime, ``qonnx.custom_op.channels_last`` of QONNX
"""
_LAYOUT_ATTRIBUTES = frozenset({"data_format", "data_layout"})
"""attributes in which operators of other domains say ``NHWC``; onnxruntime's say ``channels_last=1``"""
_SPATIAL = frozenset(
    {"Conv", "ConvInteger", "ConvTranspose", "DeformConv", "FusedConv", "QLinearConv", "BatchNormalization"}
    | {"InstanceNormalization", "GroupNormalization", "LRN", "AveragePool", "MaxPool", "LpPool", "MaxUnpool"}
    | {"MaxRoiPool", "RoiAlign", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "DepthToSpace", "SpaceToDepth"}
    | {"GridSample", "QLinearAveragePool", "QLinearGlobalAveragePool", "GroupNorm", "SkipGroupNorm"}
)
"""operators of maps: what they read first and give first has its channels in the second axis"""
_FIRST_ONLY = frozenset(
    {"Bernoulli", "BitShift", "Cast", "CastLike", "Clip", "CumSum", "Dropout", "GatherElements", "Hardmax", "Identity"}
    | {"LayerNormalization", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Pad", "RMSNormalization"}
    | {"Resize", "ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "Shrink", "Slice", "Softmax", "Split"}
    | {"Tile", "Trilu", "Upsample", "BipolarQuant", "FloatQuant", "IntQuant", "MultiThreshold", "Quant", "Trunc"}
    | {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"}
    | {"ReduceSum", "ReduceSumSquare", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"}
)
"""operators whose outputs keep the layout of their first input"""
_ELEMENTWISE = frozenset(
    {"Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BiasGelu", "Ceil", "Celu", "Concat"}
    | {"Cos", "Cosh", "Div", "Elu", "Equal", "IsInf", "IsNaN", "Sinh"}
    | {"Erf", "Exp", "FastGelu", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu"}
    | {"Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow"}
    | {"QuickGelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt"}
    | {"Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor", "QLinearAdd", "QLinearConcat"}
    | {"QLinearMul"}
)
"""operators whose output has the layout of all that they read"""
LINEAR = {"MatMul": 1, "MatMulInteger": 1, "FusedMatMul": 1, "MatMulNBits": 1, "QLinearMatMul": 3}
"""operators that are a linear layer on the last axis if the input at this place is a weight"""
_QUANTISING = "quantizelinear"
"""what the names of quantisers and dequantisers end with, those of vendors too: ``VitisQuantizeLinear``"""
_QLINEAR_OPERANDS = {"QLinearAdd": slice(0, 4, 3), "QLinearMul": slice(0, 4, 3), "QLinearConcat": slice(2, None, 3)}
"""quantised operators -> where their operands are among scales and zero points"""
_SCALES = {"Resize": 2, "Upsample": 1}
"""operators -> where their scales are"""


class Said(NamedTuple):
    """The layouts that an operator reads and gives; None where it takes any."""

    reads: Layout | None
    gives: Layout | None


_AS_MAPS = Said(CHANNELS_FIRST, CHANNELS_FIRST)
_AS_NHWC = Said(CHANNELS_LAST, CHANNELS_LAST)


def moves_channels(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether an operator reads or gives anything else than NCHW, and is not the Transpose of an attention's heads."""
    if node.op_type == "Transpose":
        moved = permutation(node)
        if moved is None or moved in (CHANNELS_LAST, TO_CHANNELS_FIRST):
            return moved is not None
        before = index.producing(node.input[0])
        of_map = before is not None and (operator(before) in _SPATIAL or operator(before) in _ELEMENTWISE)
        return len(moved) == 4 and moved[1] != 1 and of_map
    return node.domain == _NCHWC_DOMAIN or _reads_nhwc(node) or is_namesake(node)


def _reads_nhwc(node: onnx.NodeProto) -> bool:
    """Whether the name or an attribute of an operator says that it reads and gives NHWC."""
    if _is_called_nhwc(node.domain, node.op_type):
        return True
    told = bool(node.domain) and node.domain != _NCHWC_DOMAIN
    return told and any(
        (each.name == "channels_last" and each.i) or (each.name in _LAYOUT_ATTRIBUTES and each.s == b"NHWC")
        for each in node.attribute
    )


@lru_cache(maxsize=4096)
def _is_called_nhwc(domain: str, name: str) -> bool:
    return bool(_NHWC.search(domain) or _NHWC.search(name))


def computes(node: onnx.NodeProto) -> str:
    """The operator of a node without the domain that only tells in which layout it computes: that of ONNX's name."""
    if not node.domain:
        return node.op_type
    moved = node.domain == _NCHWC_DOMAIN or _NHWC.search(node.domain)
    return node.op_type if moved else operator(node)


def permutation(node: onnx.NodeProto) -> tuple[int, ...] | None:
    """How a Transpose moves axes; None for other operators, and where it does not say."""
    if node.op_type != "Transpose" or operator(node) != "Transpose":
        return None
    moved = next((tuple(each.ints) for each in node.attribute if each.name == "perm"), ())
    return moved if moved and sorted(moved) == list(range(len(moved))) else None


def spatial(node: onnx.NodeProto, index: GraphIndex) -> Said | None:
    """What an operator of maps says; None for other operators."""
    if node.domain == _NCHWC_DOMAIN:
        return _blocked(node)
    if _reads_nhwc(node):
        return _AS_NHWC
    kind = operator(node)
    if kind in _SPATIAL:
        return _AS_MAPS
    return _resized(node, index, kind) if kind in _SCALES else None


def _blocked(node: onnx.NodeProto) -> Said:
    """What one of onnxruntime's operators of blocks says."""
    is_last = any(each.name == "channels_last" and each.i for each in node.attribute)
    plain = CHANNELS_LAST if is_last else CHANNELS_FIRST
    if node.op_type == "ReorderInput":
        return Said(plain, BLOCKED)
    if node.op_type == "ReorderOutput":
        return Said(BLOCKED, plain)
    return Said(None, BLOCKED)  # the first convolution reads the image as it is


def _resized(node: onnx.NodeProto, index: GraphIndex, kind: str) -> Said | None:
    """A Resize whose scales tell which two of four axes are height and width."""
    scales = numbers(node, index, _SCALES[kind])
    if len(scales) != 4 or scales[0] != 1 or scales.count(1) == 4:
        return None
    if scales[1] == 1 and scales[2] != 1:
        return _AS_MAPS
    return _AS_NHWC if scales[3] == 1 and scales[1] != 1 else None


def numbers(node: onnx.NodeProto, index: GraphIndex, place: int) -> tuple[float, ...]:
    """The numbers in a constant input, or in the attribute ``scales``; () where they are not known."""
    name = node.input[place] if len(node.input) > place else ""
    if not name:
        return next((tuple(each.floats) for each in node.attribute if each.name == "scales"), ())
    if not index.is_constant(name):
        return ()
    try:
        return tuple(index.model.tensor(name).ravel().tolist())
    except Exception:  # a payload that is not there: then its values are not known
        return ()


def keeps(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether the outputs of a node have the layout of what it reads."""
    kind = operator(node)
    if kind in LINEAR:
        return _is_linear(node, index, LINEAR[kind])
    if kind.startswith("Reduce"):
        return all(each.i for each in node.attribute if each.name == "keepdims")
    return kind in _FIRST_ONLY or kind in _ELEMENTWISE or kind.lower().endswith(_QUANTISING)


def _is_linear(node: onnx.NodeProto, index: GraphIndex, place: int) -> bool:
    """Whether a product is that of the last axis with a matrix of weights."""
    name = node.input[place] if len(node.input) > place else ""
    if not name or index.is_activation(name) or any(each.name == "transA" and each.i for each in node.attribute):
        return False
    position = index.initializers.get(name)
    return position is None or len(index.model.structure.graph.initializer[position].dims) > 1


def data_inputs(node: onnx.NodeProto) -> list[str]:
    """The inputs that have the layout of the output."""
    kind, names = operator(node), list(node.input)
    if kind in _QLINEAR_OPERANDS:
        return names[_QLINEAR_OPERANDS[kind]]
    return names if kind in _ELEMENTWISE else names[:1]


def kept_from(node: onnx.NodeProto, index: GraphIndex) -> tuple[str, ...]:
    """The activations among the inputs of a node whose layout its outputs have, moved if it is a Transpose; none for
    operators that keep nothing of it.
    """
    if permutation(node) is None and not keeps(node, index):
        return ()
    return tuple(dict.fromkeys(name for name in data_inputs(node) if name and index.is_activation(name)))


def data_outputs(node: onnx.NodeProto) -> list[str]:
    """The outputs that have the layout of the inputs."""
    return list(node.output) if operator(node) == "Split" else list(node.output[:1])
