"""PSABlock of YOLO11: PyTorch module.

Source of the formula: ultralytics/ultralytics, ``nn/modules/block.py`` (PSABlock and Attention); the attention is that
of YOLOv10 (arXiv:2405.14458). No paper of its own.

    [q_h, k_h, v_h] = BN(qkv(x)) for each head h        o_h = v_h softmax(q_h^T k_h / sqrt(d_k))^T
    a = BN(proj(o + BN(pe(v))))        z = x + a        y = z + BN(ffn_1(silu(BN(ffn_0(z)))))

- q, k and v lie interleaved: the first 2 d_k + d_v channels of ``qkv`` are those of the first head, and so on.
- ``pe`` is a depthwise 3x3 convolution of v as a map, with all heads' channels concatenated.
- No convolution has a bias while there are BatchNorms. Their eps is 1e-3 in every Ultralytics model, and is not in a
  state_dict. After ``model.fuse()`` there are biases and no BatchNorms: ``fused=True``.
- Identity (with the shortcut): scale and shift of the BatchNorms of ``proj`` and ``ffn_1`` 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import require_heads


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
        if int(channels // heads * attn_ratio) < 1:
            raise ValueError(f"PSABlock needs keys of at least one channel: {channels // heads} * {attn_ratio} is less")
        self.attn = _Attention(channels, heads, attn_ratio, bn_eps, fused)
        self.ffn = nn.Sequential(
            _Convolution(channels, 2 * channels, bn_eps, fused, act=True),
            _Convolution(2 * channels, channels, bn_eps, fused),
        )
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        x = x + self.attn(x) if self.shortcut else self.attn(x)
        x = x + self.ffn(x) if self.shortcut else self.ffn(x)
        return x


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

    def __init__(self, channels: int, heads: int, attn_ratio: float, eps: float, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.value_dim = channels // heads
        self.key_dim = int(self.value_dim * attn_ratio)
        self.qkv = _Convolution(channels, channels + 2 * self.key_dim * heads, eps, fused)
        self.proj = _Convolution(channels, channels, eps, fused)
        self.pe = _Convolution(channels, channels, eps, fused, kernel=3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).flatten(2).unflatten(1, (self.heads, -1))
        q, k, v = heads.split([self.key_dim, self.key_dim, self.value_dim], dim=2)
        weights = torch.softmax(q.transpose(2, 3) @ k * self.key_dim**-0.5, dim=3)
        y: Tensor = self.proj((v @ weights.transpose(2, 3)).reshape(x.shape) + self.pe(v.reshape(x.shape)))
        return y
