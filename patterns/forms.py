"""What the template and the PyTorch module of a block share: how published code names and sizes the layers.

Nothing of PyTorch or ONNX is imported here, so that neither of the two has to load what the other needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

AIFI_LAYERS = {"rtdetr": ("self_attn", "linear1", "linear2"), "ultralytics": ("ma", "fc1", "fc2")}
"""variant -> prefixes of the attention and of the two linear layers"""
AIFI_MIXED = {"efficient-additive": ("effaddattention", "fc1", "fc2"), "hilo": ("HiLo", "fc1", "fc2")}
"""the same of those with another attention, whose linear layers are 1x1 convolutions"""


@dataclass(frozen=True)
class HiLoHeads:
    """Heads of HiLo; ``alpha``: the part of them that is for low frequencies. A window of 1 has no high ones."""

    count: int
    alpha: float
    window: int

    @property
    def low(self) -> int:
        return self.count if self.window == 1 else int(self.count * self.alpha + 1e-9)

    @property
    def high(self) -> int:
        return self.count - self.low


BRA_LAYERS = {"official": ("qkv.qkv", "wo"), "nchw": ("qkv_linear", "output_linear")}
"""variant -> prefixes of the first and of the last linear layer"""


def bra_windows(variant: str, side: int, windows: int) -> tuple[int, int]:
    """How many windows lie along a side of the map, and how long they are; the last may reach beyond it."""
    # rounded up without negative numbers, which the TorchScript exporter divides towards 0
    length = side // windows if variant == "nchw" else (side + windows - 1) // windows
    return ((side + length - 1) // length, length) if variant == "nchw" else (windows, length)


CPCA_STRIPS = (7, 11, 21)
"""lengths of the strip convolutions"""

GAM_SHUFFLE = 4
"""groups that the channels of the spatial gate are shuffled in"""

LSKA_KERNELS = {7: (3, 3, 2), 11: (3, 5, 2), 23: (5, 7, 3), 35: (5, 11, 3), 41: (5, 13, 3), 53: (5, 17, 3)}
"""k_size -> (kernel of conv0h and conv0v, kernel of conv_spatial_h and conv_spatial_v, dilation of these)"""

SEAM_PATCHES = (3, 5, 7)
"""sides of the patches of MultiSEAM"""

SWIN_OUTSIDE = -100.0
"""what the mask adds to the logits of places that are no neighbours"""


@dataclass(frozen=True)
class BamForm:
    """(prefix of a layer, prefix of its BatchNorm) for each, in order; prefixes of the last layers."""

    channel: tuple[tuple[str, str], ...]
    channel_last: str
    reduce: tuple[str, str]
    dilated: tuple[tuple[str, str], ...]
    spatial_last: str
    dilation: int
    product: bool
    """of the two gates; else their sum"""


_C, _S = "channel_att.gate_c.gate_c", "spatial_att.gate_s.gate_s"
_BAM_OFFICIAL = BamForm(
    ((f"{_C}_fc_0", f"{_C}_bn_1"),),
    f"{_C}_fc_final",
    (f"{_S}_conv_reduce0", f"{_S}_bn_reduce0"),
    tuple((f"{_S}_conv_di_{i}", f"{_S}_bn_di_{i}") for i in range(2)),
    f"{_S}_conv_final",
    dilation=4,
    product=True,
)
BAM_FORMS = {
    "official": _BAM_OFFICIAL,
    "paper": replace(_BAM_OFFICIAL, product=False),
    "cv-attention": BamForm(
        tuple((f"ca.ca.fc{i}", f"ca.ca.bn{i}") for i in range(3)),
        "ca.ca.last_fc",
        ("sa.sa.conv_reduce1", "sa.sa.bn_reduce1"),
        tuple((f"sa.sa.conv_{i}", f"sa.sa.bn_{i}") for i in range(3)),
        "sa.sa.last_conv",
        dilation=2,
        product=False,
    ),
}


@dataclass(frozen=True)
class CbamForm:
    """Prefixes of the layers, and which of them have biases."""

    layers: tuple[str, ...]
    """of the channel gate: a bottleneck, or one layer"""
    conv: str
    bn: str | None = None
    linear: bool = False
    bias: bool = False
    conv_bias: bool = False
    max_first: bool = False
    """whether the maximum over the channels is the first of the two planes"""
    adds_input: bool = False
    kernel: int = 7
    """side of the spatial convolution where it is not given"""


_CBAM_COLLECTIONS = CbamForm(("ca.se.0", "ca.se.2"), "sa.conv", conv_bias=True, max_first=True)
CBAM_FORMS = {
    "official": CbamForm(
        ("ChannelGate.mlp.1", "ChannelGate.mlp.3"),
        "SpatialGate.spatial.conv",
        "SpatialGate.spatial.bn",
        linear=True,
        bias=True,
        max_first=True,
    ),
    "ultralytics": CbamForm(("channel_attention.fc",), "spatial_attention.cv1", bias=True),
    "timm": CbamForm(("channel.fc1", "channel.fc2"), "spatial.conv.conv", "spatial.conv.bn"),
    "yolo-port": CbamForm(("channel_attention.fc1", "channel_attention.fc2"), "spatial_attention.conv1"),
    "cv-attention": _CBAM_COLLECTIONS,
    "external-attention": replace(_CBAM_COLLECTIONS, adds_input=True, kernel=49),
}

CBAM_POOLS = ("avg", "max", "lp", "lse")
"""what the channel gate of the authors' code can take of a map: mean, maximum, root of the sum of squares, logsumexp"""


@dataclass(frozen=True)
class PsaForm:
    """What the blocks of YOLO11 and YOLO12 do not have in common."""

    ffn: str
    """prefix of the feed-forward part"""
    kernel: int
    """side of the convolution of v"""
    head: int
    """channels of a head where their number is not given"""


PSA_FORMS = {"yolo11": PsaForm("ffn", kernel=3, head=64), "area": PsaForm("mlp", kernel=7, head=32)}


@dataclass(frozen=True)
class GcBranch:
    """Prefixes of the layers that make of the context what is added, or a gate."""

    fc1: str
    norm: str
    fc2: str
    add: bool


@dataclass(frozen=True)
class GcForm:
    """Prefix of the layer that pools, the branches in order, and what is left to a default."""

    mask: str
    branches: tuple[GcBranch, ...]
    timm: bool

    @property
    def reduction(self) -> int:
        """Channels over hidden channels."""
        return 8 if self.timm else 16

    @property
    def eps(self) -> float:
        """Epsilon of the LayerNorm."""
        return 1e-6 if self.timm else 1e-5

    def norm_shape(self, hidden: int) -> tuple[int, ...]:
        """Shape of the LayerNorm's weight."""
        return (hidden,) if self.timm else (hidden, 1, 1)


_GC_MUL, _GC_ADD = (
    GcBranch(f"channel_{kind}_conv.0", f"channel_{kind}_conv.1", f"channel_{kind}_conv.3", kind == "add")
    for kind in ("mul", "add")
)
_TIMM_SCALE, _TIMM_ADD = (
    GcBranch(f"mlp_{kind}.fc1", f"mlp_{kind}.norm", f"mlp_{kind}.fc2", kind == "add") for kind in ("scale", "add")
)
GC_FORMS = {
    "official": GcForm("conv_mask", (_GC_ADD,), timm=False),
    "official-mul": GcForm("conv_mask", (_GC_MUL,), timm=False),
    "official-both": GcForm("conv_mask", (_GC_MUL, _GC_ADD), timm=False),
    "timm": GcForm("conv_attn", (_TIMM_SCALE,), timm=True),
    "timm-add": GcForm("conv_attn", (_TIMM_ADD,), timm=True),
    "timm-both": GcForm("conv_attn", (_TIMM_SCALE, _TIMM_ADD), timm=True),
}
