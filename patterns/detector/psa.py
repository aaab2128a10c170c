"""PSABlock, C2PSA and ABlock: attention over the positions of a map (YOLOv10, YOLO11, YOLO12)."""

from __future__ import annotations

from graphsurgery.patterns.detector.common import linear, link, pointwise
from graphsurgery.recognition import Chain, Expression, Half, OneOf, Op, Part, Pattern, TokenPath, Value

_SOFTMAX = ("Softmax", "Attention", "MultiHeadAttention")


def _attentive(x: Expression) -> Op:
    """x + proj(attention + positional convolution), then + ffn. Each has its own tokens of the convolution qkv."""
    qkv = Part("attn.qkv", ("Conv",), x, where=pointwise)
    values = TokenPath(qkv)
    position = Part("attn.pe", ("DWConv", "Conv"), values)
    mixed = OneOf(
        Op("Add", TokenPath(qkv, contains=[_SOFTMAX]), position),
        Op("Add", TokenPath(qkv, contains=[_SOFTMAX]), TokenPath(position)),
    )
    y = Op("Add", x, Part("attn.proj", "Conv", mixed, where=pointwise))
    wide = Part("ffn.0", "Conv", y, where=pointwise)
    return Op("Add", y, Part("ffn.1", "Conv", wide, where=(pointwise, linear)))


PSABLOCK = Pattern(
    "PSABlock",
    "self-attention over the positions and a feed-forward network, each with a shortcut",
    _attentive(Value()),
)
ABLOCK = Pattern("ABlock", "the same over areas of the map, in an A2C2f (YOLO12)", _attentive(Value()), alone=False)

_y = Part("cv1", "Conv", Value(), where=pointwise)
_deep = Chain("m", link("PSABlock"), Half(_y, 1))
C2PSA = Pattern(
    "C2PSA",
    "half of the channels through PSABlocks (YOLO11; with one block: YOLOv10's PSA)",
    Part("cv2", "Conv", Op("Concat", Half(_y, 0), _deep), where=pointwise),
    aliases=("PSA",),
)
