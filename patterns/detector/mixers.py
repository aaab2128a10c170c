"""Blocks of FastViT and MobileNetV4: a depthwise convolution in front of the layers over the channels."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import active, linear, pointwise, spatial, unstrided
from graphsurgery.patterns.detector.conv import CONV, is_plain
from graphsurgery.patterns.detector.gates import gated
from graphsurgery.recognition import Expression, OneOf, Op, Part, Pattern, RecognisedBlock, TokenPath, Value

_ATTENTION = ("Softmax", "Attention", "MultiHeadAttention")


def _scaled(y: Expression) -> OneOf:
    """``y``, or ``y`` with a scale for each channel."""
    return OneOf(y, Op("Mul", y))


def _keeps_size(conv: RecognisedBlock) -> bool:
    return linear(conv) and spatial(conv) and unstrided(conv) and not is_plain(conv)


_x = Value()
_norm = Op("BatchNormalization", _x)
_less = Op("Sub", Part("mixer", "RepConv", _x), OneOf(_norm, Op("Add", _norm)))
REPMIXER = Pattern(
    "RepMixer",
    "depthwise branches less a normalisation, with a shortcut, not fused (FastViT)",
    Op("Add", _x, _scaled(_less)),
    alone=False,
)
FUSED = Pattern(
    "RepMixer",
    "the same as one depthwise convolution, in a RepMixerBlock",
    CONV.graph,
    alone=False,
    facts=CONV.facts,
    where=_keeps_size,
)


def _mixed(y: Expression) -> Op:
    """``y`` plus a depthwise convolution of it and two layers over the channels."""
    depth = Part("mlp.conv", "DWConv", y, where=(linear, unstrided, spatial))
    hidden = Part("mlp.fc1", "Conv", depth, where=(pointwise, active))
    return Op("Add", y, _scaled(Part("mlp.fc2", "Conv", hidden, where=(pointwise, linear))))


REPMIXERBLOCK = Pattern(
    "RepMixerBlock",
    "RepMixer, then a depthwise convolution and two layers over the channels with a shortcut (FastViT)",
    _mixed(Part("token_mixer", "RepMixer", Value())),
)

_a = Value()
_tokens = TokenPath(Op("BatchNormalization", _a), contains=[_ATTENTION])
ATTENTIONBLOCK = Pattern(
    "AttentionBlock",
    "self-attention over the positions, then the second half of a RepMixerBlock (FastViT)",
    _mixed(Op("Add", _a, _scaled(_tokens))),
)

_u = Value()
_start = Part("dw_start", "DWConv", _u, where=linear)
_wide = Part("pw_exp", "Conv", _start, where=(pointwise, active))
_middle = Part("dw_mid", "DWConv", _wide, where=active)
_deep = Part("pw_proj", "Conv", OneOf(_middle, gated(_middle)), where=(pointwise, linear))
_plain = Part("pw_proj", "Conv", _wide, where=(pointwise, linear))
UNIVERSAL = Pattern(
    "InvertedResidual",
    "with a depthwise convolution in front of the expansion (MobileNetV4: universal inverted bottleneck)",
    OneOf(_scaled(_deep), Op("Add", _u, _scaled(OneOf(_deep, _plain)))),
    aliases=("UniversalInvertedResidual",),
)
