"""Attention over channels inside of other blocks: SE in its forms, effective SE, ECA, global context."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active
from graphsurgery.recognition import Expression, OneOf, Op, Part, RecognisedBlock, TokenPath

_MEANS = ("GlobalAveragePool", "ReduceMean", "AveragePool")
_GATE_ENDS = ("Sigmoid", "HardSigmoid", "Clip", "Div", "Mul", "Reshape", "Unsqueeze", "Expand")
"""the last node of a gate: its activation, or what gives it the shape of a map again"""
_LAYERS = ("Conv", "MatMul", "Gemm")


def gated(y: Expression) -> OneOf:
    """``y`` times a gate that is computed of its positions' mean."""
    return OneOf(_excited(y), _weighted(y), *_in_context(y))


def _ends_in_a_gate(conv: RecognisedBlock) -> bool:
    """Whether onnxruntime has taken the gate into the convolution."""
    return conv.facts.get("activation") in ("sigmoid", "hardsigmoid")


def _excited(y: Expression) -> Op:
    """The gate by one convolution or two: SE, effective SE, RTMDet's channel attention."""
    means = Op(_MEANS, y, first=True)
    one = Part("fc", "Conv", means)
    inner = Part("fc1", "Conv", means, where=active)
    two = Part("fc2", "Conv", inner)
    gate = Op(("Sigmoid", "HardSigmoid", "Clip"), OneOf(one, two))
    scaled = OneOf(
        gate, Op(("Clip", "Div", "Mul"), OneOf(Op("Clip", Op("Add", OneOf(one, two))), Op("Add", OneOf(one, two))))
    )
    fused = Part("fc", "Conv", means, where=_ends_in_a_gate), Part("fc2", "Conv", inner, where=_ends_in_a_gate)
    return Op("Mul", y, OneOf(scaled, *fused))


def _weighted(y: Expression) -> Op:
    """The gate by whatever works on the means alone: SE of matrix products, ECA."""
    return Op("Mul", y, TokenPath(y, contains=[_MEANS, _LAYERS], ends=_GATE_ENDS))


def _to_one_channel(conv: RecognisedBlock) -> bool:
    return conv.facts.get("channels_out") == 1


def _in_context(y: Expression) -> tuple[Op, Op]:
    """Scaled, or shifted, by layers of a mean that a map of one channel weights: the global context of GCNet."""
    mask = Part("conv_mask", "Conv", y, where=_to_one_channel)
    pooled = ["Softmax"], ["MatMul", "FusedMatMul"], _LAYERS
    return (
        Op("Mul", y, TokenPath(y, contains=pooled, ends=_GATE_ENDS, beside=(mask,))),
        Op("Add", y, TokenPath(y, contains=pooled, beside=(mask,))),
    )
