"""PSABlock of YOLO11 and ABlock of YOLO12: PyTorch modules.

Source of the formula: ultralytics/ultralytics, ``nn/modules/block.py`` (PSABlock and Attention, ABlock and AAttn). The
attention of PSABlock is that of YOLOv10 (arXiv:2405.14458); it has no paper of its own. ABlock: "YOLOv12:
Attention-Centric Real-Time Object Detectors", arXiv:2502.12524.

    [q_h, k_h, v_h] = BN(qkv(x)) for each head h        o_h = v_h softmax(q_h^T k_h / sqrt(d_k))^T
    a = BN(proj(o + BN(pe(v))))        z = x + a        y = z + BN(ffn_1(silu(BN(ffn_0(z)))))

- q, k and v lie interleaved: the first 2 d_k + d_v channels of ``qkv`` are those of the first head, and so on.
- ``pe`` is a depthwise convolution of v as a map, with all heads' channels concatenated: 3x3, in ABlock 7x7.
- ABlock: keys are as wide as values, the feed-forward part is called ``mlp``, and the softmax of a position goes over
  its area only. The positions, row after row, are cut into as many runs of equal length as there are areas.
- No convolution has a bias while there are BatchNorms. Their eps is 1e-3 in every Ultralytics model, and is not in a
  state_dict. After ``model.fuse()`` there are biases and no BatchNorms: ``fused=True``.
- Identity (with the shortcut): scale and shift of the BatchNorms of ``proj`` and ``ffn_1`` 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import require_heads, tracing


class PSABlock(nn.Module):
    """Self-attention over all positions and a feed-forward part, with shortcuts.

    ``channels``: C of the map. ``heads``: a divisor of C. ``attn_ratio``: channels of a key over those of a value.
    ``shortcut``: whether x is added. ``bn_eps``: eps of the BatchNorms. ``fused``: biases in their place. ValueError
    for settings that do not fit together.

    Keys: ``attn.qkv.conv.weight`` [C + 2 d_k heads, C, 1, 1], ``attn.proj.conv.weight`` [C, C, 1, 1],
    ``attn.pe.conv.weight`` [C, 1, 3, 3], ``ffn.0.conv.weight`` [2C, C, 1, 1], ``ffn.1.conv.weight`` [C, 2C, 1, 1], and
    for each ``.bn.{weight,bias,running_mean,running_var}``, or ``.conv.bias`` if fused.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(
        self,
        channels: int,
        heads: int,
        attn_ratio: float = 0.5,
        shortcut: bool = True,
        bn_eps: float = 1e-3,
        fused: bool = False,
    ) -> None:
        super().__init__()
        require_heads("PSABlock", channels, heads)
        key_dim = int(channels // heads * attn_ratio)
        if key_dim < 1:
            raise ValueError(f"PSABlock needs keys of at least one channel: {channels // heads} * {attn_ratio} is less")
        self.attn = _Attention(channels, heads, key_dim, bn_eps, fused)
        self.ffn = _feed_forward(channels, 2 * channels, bn_eps, fused)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        x = x + self.attn(x) if self.shortcut else self.attn(x)
        x = x + self.ffn(x) if self.shortcut else self.ffn(x)
        return x


class ABlock(nn.Module):
    """Self-attention within areas of the map and a feed-forward part, with shortcuts.

    ``channels``: C of the map. ``heads``: a divisor of C. ``area``: number of areas, a divisor of H W. ``hidden``:
    width of the feed-forward part. ``pe_kernel``: side of the convolution of v, odd. ``bn_eps``: eps of the
    BatchNorms. ``fused``: biases in their place. ValueError for settings that do not fit together.

    Keys: ``attn.qkv.conv.weight`` [3C, C, 1, 1], ``attn.proj.conv.weight`` [C, C, 1, 1], ``attn.pe.conv.weight``
    [C, 1, 7, 7], ``mlp.0.conv.weight`` [F, C, 1, 1], ``mlp.1.conv.weight`` [C, F, 1, 1], and for each
    ``.bn.{weight,bias,running_mean,running_var}``, or ``.conv.bias`` if fused.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(
        self,
        channels: int,
        heads: int,
        hidden: int,
        area: int = 1,
        pe_kernel: int = 7,
        bn_eps: float = 1e-3,
        fused: bool = False,
    ) -> None:
        super().__init__()
        require_heads("ABlock", channels, heads)
        if hidden < 1 or area < 1 or pe_kernel % 2 == 0:
            raise ValueError(
                f"ABlock needs hidden and area of at least 1 and an odd pe_kernel, got {hidden}, {area} and {pe_kernel}"
            )
        self.attn = _Attention(channels, heads, channels // heads, bn_eps, fused, pe_kernel, area)
        self.mlp = _feed_forward(channels, hidden, bn_eps, fused)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map that the areas do not divide."""
        x = x + self.attn(x)
        y: Tensor = x + self.mlp(x)
        return y


def _feed_forward(channels: int, hidden: int, eps: float, fused: bool) -> nn.Sequential:
    return nn.Sequential(
        _Convolution(channels, hidden, eps, fused, act=True), _Convolution(hidden, channels, eps, fused)
    )


class _Convolution(nn.Module):
    """A convolution that keeps the size, with its BatchNorm (or bias) and perhaps a SiLU."""

    def __init__(
        self, inputs: int, outputs: int, eps: float, fused: bool, kernel: int = 1, groups: int = 1, act: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=fused)
        self.bn: nn.Module = nn.Identity() if fused else nn.BatchNorm2d(outputs, eps=eps, momentum=0.03)
        self.act: nn.Module = nn.SiLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class _Attention(nn.Module):
    """The attention part. [N, C, H, W] -> [N, C, H, W]."""

    def __init__(
        self, channels: int, heads: int, key_dim: int, eps: float, fused: bool, kernel: int = 3, area: int = 1
    ) -> None:
        super().__init__()
        self.heads, self.area = heads, area
        self.value_dim, self.key_dim = channels // heads, key_dim
        self.qkv = _Convolution(channels, channels + 2 * key_dim * heads, eps, fused)
        self.proj = _Convolution(channels, channels, eps, fused)
        self.pe = _Convolution(channels, channels, eps, fused, kernel=kernel, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        if not tracing() and x.shape[2] * x.shape[3] % self.area:
            raise ValueError(f"{self.area} areas do not divide the positions of a map of {x.shape[2]}x{x.shape[3]}")
        heads = self.qkv(x).flatten(2).unflatten(1, (self.heads, -1))
        q, k, v = heads.split([self.key_dim, self.key_dim, self.value_dim], dim=2)
        within = [part.unflatten(3, (self.area, -1)).transpose(2, 3) for part in (q, k, v)]  # [N, heads, area, d, p]
        weights = torch.softmax(within[0].transpose(3, 4) @ within[1] * self.key_dim**-0.5, dim=4)
        o = (within[2] @ weights.transpose(3, 4)).transpose(2, 3).reshape(x.shape)
        y: Tensor = self.proj(o + self.pe(v.reshape(x.shape)))
        return y
