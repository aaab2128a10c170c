"""Conv: a convolution with its normalisation and its activation, fused or not."""

from __future__ import annotations

from graphsurgery.patterns.detector.activations import activated, activation_name, affine
from graphsurgery.recognition import Expression, OneOf, Op, Pattern, RecognisedBlock, Value, View

_CONVOLUTIONS = ("Conv", "ConvInteger", "FusedConv", "NhwcFusedConv")
_BESIDE = ("Reshape", "Transpose", "Add", "Mul", "Div", "Pad")
"""operators that a normalisation, a bias or a scale may be written with"""
_FUSED = "activation"  # attribute of onnxruntime's convolutions
_NORMS = ("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization")


def _image_convolution(view: View, node_index: int) -> bool:
    weight = view.weight_shape(node_index)
    return weight is None or len(weight) == 4


def _normalised(x: Expression) -> OneOf:
    """A convolution with what a converter may have left beside it: padding, bias, scale and shift."""
    padded = OneOf(x, Op("Pad", x, first=True))
    conv = Op(_CONVOLUTIONS, padded, first=True, where=_image_convolution)
    scaled = Op("Mul", conv)
    grouped = Op("Reshape", Op("InstanceNormalization", Op("Reshape", conv)))
    return OneOf(
        conv,
        Op("BatchNormalization", OneOf(conv, Op("Add", conv))),
        Op("Add", OneOf(conv, scaled)),
        scaled,
        Op(("GroupNormalization", "InstanceNormalization"), conv),
        *(grouped, Op("Mul", grouped), Op("Add", OneOf(grouped, Op("Mul", grouped)))),  # a scale of 1 is left out
        Op("Transpose", Op("LayerNormalization", Op("Transpose", conv))),
    )


def _facts(view: View, nodes: frozenset[int]) -> dict[str, object]:
    node_index = next(p for p in nodes if view.op(p) in _CONVOLUTIONS)
    weight = view.weight_shape(node_index) or ()
    groups = view.integer(node_index, "group", 1)
    known = len(weight) == 4
    channels = weight[1] * groups if known else None
    return {
        "kernel": weight[2:] if known else None,
        "stride": view.integers(node_index, "strides") or (1, 1),
        "groups": groups,
        "channels_in": channels,
        "channels_out": weight[0] if known else None,
        "depthwise": known and groups > 1 and groups == channels,
        "normalisation": next((op for op in map(view.op, nodes) if op in _NORMS), None),
        "activation": _activation(view, node_index, nodes),
    }


def _activation(view: View, convolution: int, nodes: frozenset[int]) -> str | None:
    fused = view.attribute(convolution, _FUSED)
    if fused is not None:
        return fused.s.decode(errors="replace").lower()
    if view.clips_at_zero(convolution if len(nodes) == 1 else max(nodes)):
        return "relu"  # quantisers leave a ReLU out where the zero point does its work
    kinds = {view.op(p) for p in nodes} - {*_CONVOLUTIONS, *_NORMS, *_BESIDE}
    return activation_name(view, nodes) if kinds else None


def is_plain(conv: RecognisedBlock) -> bool:
    """Whether a convolution mixes its channels: no depthwise one."""
    return not conv.facts.get("depthwise")


_x = Value()
_y = _normalised(_x)
_z = activated(_y)
CONV = Pattern(
    "Conv",
    "convolution, with its BatchNormalization and activation (mmdetection: ConvModule; YOLOX: BaseConv)",
    OneOf(_y, _z, affine(_z)),
    aliases=("ConvModule", "BaseConv", "ConvBNLayer"),
    facts=_facts,
    where=is_plain,
    greedy=True,
)
DWCONV = Pattern(
    "DWConv",
    "depthwise convolution, with its BatchNormalization and activation",
    CONV.graph,
    facts=_facts,
    where=lambda conv: not is_plain(conv),
    greedy=True,
)
