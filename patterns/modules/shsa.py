"""SHSA, single-head self-attention of SHViT, alone and in its block: PyTorch module.

Paper: "SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design", CVPR 2024, arXiv:2401.16456.
Source of the formula: ysj9909/SHViT, ``model/shvit.py``, ``SHSA`` and ``BasicBlock``.

    [a, b] = x, of which a has the first p channels        [q, k, v] = BN(qkv(GN(a)))
    unit     y = BN(proj(act([v softmax(q^T k / sqrt(d))^T, b])))
    block    z = x + BN(dw3x3(x)), z = z + unit(z), y = z + BN(pw2(act(BN(pw1(z)))))

- ``act`` is ReLU; collections of YOLO and RT-DETR modules have SiLU.
- GN is a GroupNorm of one group (eps 1e-5): over all channels of a and all positions.
- No convolution has a bias. The last BatchNorm of each part starts with weight 0, so that the block starts as an
  identity; the unit starts at 0.
- Published widths: d 16; p 32, 48, 68 of 128, 224, 320 channels (1/4.67 of them).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Described, conv_with_bn, named, under_m

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


class SHSA(Described):
    """Self-attention of one head over all positions, on a part of the channels.

    ``channels``: C of the map. ``pdim``: channels that take part in the attention, below C. ``qk_dim``: of a query.
    ``bn_eps``: eps of the BatchNorms. ``activation``: relu or silu. ValueError for widths that do not fit together, and
    for another activation.

    Keys: ``pre_norm.{weight,bias}`` [p], ``qkv.c.weight`` [2 d + p, p, 1, 1], ``proj.1.c.weight`` [C, C, 1, 1], and
    ``qkv.bn``, ``proj.1.bn`` ``.{weight,bias,running_mean,running_var}``.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "pdim", "qk_dim", "activation")

    def __init__(
        self, channels: int, pdim: int, qk_dim: int = 16, bn_eps: float = 1e-5, activation: str = "relu"
    ) -> None:
        super().__init__()
        if not 0 < pdim < channels or qk_dim < 1:
            raise ValueError(
                f"SHSA needs a pdim between 0 and its channels and a qk_dim of at least 1, "
                f"got {pdim} and {qk_dim} for {channels}"
            )
        if activation not in ACTIVATIONS:
            raise ValueError(f"SHSA has the activations {', '.join(ACTIVATIONS)}, not {activation!r}")
        self.channels, self.pdim, self.qk_dim, self.activation = channels, pdim, qk_dim, activation
        self.pre_norm = nn.GroupNorm(1, pdim)
        self.qkv = conv_with_bn(pdim, 2 * qk_dim + pdim, bn_eps)
        self.proj = nn.Sequential(ACTIVATIONS[activation](), conv_with_bn(channels, channels, bn_eps, scale=0.0))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        part, rest = x[:, : self.pdim], x[:, self.pdim :]
        qkv: Tensor = self.qkv(self.pre_norm(part)).flatten(2)
        q, k, v = torch.split(qkv, [self.qk_dim, self.qk_dim, self.pdim], dim=1)
        weights = torch.softmax(q.transpose(1, 2) @ k * self.qk_dim**-0.5, dim=2)
        attended = (v @ weights.transpose(1, 2)).reshape(part.shape)
        y: Tensor = self.proj(torch.cat([attended, rest], dim=1))
        return y


class SHSABlock(nn.Module):
    """A depthwise convolution, the attention and a feed-forward part, each with a shortcut: SHViT's BasicBlock.

    As of SHSA; ``hidden``: width of the feed-forward part, 2 C as published.

    Keys: ``conv.m.c.weight`` [C, 1, 3, 3], those of SHSA behind ``mixer.m.``, ``ffn.m.pw1.c.weight`` [F, C, 1, 1],
    ``ffn.m.pw2.c.weight`` [C, F, 1, 1], and ``conv.m.bn``, ``ffn.m.pw1.bn``, ``ffn.m.pw2.bn``
    ``.{weight,bias,running_mean,running_var}``.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(
        self,
        channels: int,
        pdim: int,
        qk_dim: int = 16,
        hidden: int | None = None,
        bn_eps: float = 1e-5,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        hidden = hidden or 2 * channels
        self.conv = under_m(conv_with_bn(channels, channels, bn_eps, 3, groups=channels, scale=0.0))
        self.mixer = under_m(SHSA(channels, pdim, qk_dim, bn_eps, activation))
        wide, narrow = conv_with_bn(channels, hidden, bn_eps), conv_with_bn(hidden, channels, bn_eps, scale=0.0)
        self.ffn = under_m(named(pw1=wide, act=ACTIVATIONS[activation](), pw2=narrow))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = self.ffn(self.mixer(self.conv(x)))
        return y
