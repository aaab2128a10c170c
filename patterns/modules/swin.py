"""Swin transformer block, with plain and with shifted windows: PyTorch module.

Paper: "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021, arXiv:2103.14030.
Source of the formula: microsoft/Swin-Transformer, ``models/swin_transformer.py``; for maps that windows do not divide,
the same authors' detection code, which transformers follows.

    z = x + proj(attention within windows of LN1(x))        y = z + fc2(gelu(fc1(LN2(z))))
    logits = q k / sqrt(d) + bias of the relative position, + mask

- shifted: the map is rolled by half a window up and to the left before it is cut into windows, and back afterwards.
  The mask is -100 (not minus infinity) between places that are no neighbours on the map.
- A map that the window does not divide is padded with zeros below and to the right, after LN1. The padding takes part
  in the attention, as in the published code.
- A map with a side not larger than the window gets one of that side's length, and no shift.
- ``relative_position_index`` and ``attn_mask`` of the published state_dicts follow from the sizes and are not kept.
- Identity: ``attn.proj`` and ``mlp.fc2`` 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..forms import SWIN_OUTSIDE
from .layers import require_heads, require_size


def window_and_shift(size: tuple[int, int], window: int, shifted: bool) -> tuple[int, int]:
    """(window, shift) in force on a map of that (H, W)."""
    if min(size) <= window:
        return min(size), 0
    return window, window // 2 if shifted else 0


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of places of a window: [window^2, window^2]."""
    y, x = (grid.flatten() for grid in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    down, right = y[:, None] - y[None] + window - 1, x[:, None] - x[None] + window - 1
    return down * (2 * window - 1) + right


def shift_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """0 or SWIN_OUTSIDE for each pair of places of each window of the rolled map: [windows, window^2, window^2]."""
    region = torch.zeros(height, width)
    edges = [(0, -window), (-window, -shift), (-shift, None)]
    for row, (top, bottom) in enumerate(edges):
        for column, (left, right) in enumerate(edges):
            region[top:bottom, left:right] = 3 * row + column
    places = _windows(region[None, :, :, None], window).squeeze(3).squeeze(0)
    return torch.where(places[:, None] == places[:, :, None], 0.0, SWIN_OUTSIDE)


def _windows(x: Tensor, window: int) -> Tensor:
    """[N, H, W, C] -> [N, windows, window^2, C]."""
    n, height, width, c = x.shape
    x = x.reshape(n, height // window, window, width // window, window, c)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _joined(x: Tensor, window: int, height: int, width: int) -> Tensor:
    """[N, windows, window^2, C] -> [N, H, W, C]."""
    x = x.reshape(x.shape[0], height // window, width // window, window, window, x.shape[3])
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class SwinBlock(nn.Module):
    """``channels``: C of the map, a multiple of ``heads``. ``size``: its (H, W), the only one it then takes.

    ``window``: side of a window. ``shifted``: by half of it. ``hidden``: width of the MLP, 4 C as published.
    ``qkv_bias``: whether ``attn.qkv`` has one. ``ln_eps``: eps of both LayerNorms. ValueError for settings that do not
    fit together.

    Keys: ``norm1.weight``, ``norm2.weight`` [C], ``attn.relative_position_bias_table`` [(2 window - 1)^2, heads],
    ``attn.qkv.weight`` [3C, C], ``attn.proj.weight`` [C, C], ``mlp.fc1.weight`` [F, C], ``mlp.fc2.weight`` [C, F], and
    the ``.bias`` of each.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        heads: int,
        window: int = 7,
        shifted: bool = False,
        hidden: int | None = None,
        qkv_bias: bool = True,
        ln_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        require_heads("SwinBlock", channels, heads)
        if window < 1:
            raise ValueError(f"SwinBlock needs a window of at least 1, got {window}")
        self.map_size = (size[0], size[1])
        window, self.shift = window_and_shift(self.map_size, window, shifted)
        self.window = window
        self.padded = (-(-size[0] // window) * window, -(-size[1] // window) * window)
        mask = shift_mask(*self.padded, window, self.shift) if self.shift else None
        self.norm1 = nn.LayerNorm(channels, eps=ln_eps)
        self.attn = _WindowAttention(channels, heads, window, qkv_bias, mask)
        self.norm2 = nn.LayerNorm(channels, eps=ln_eps)
        self.mlp = _Mlp(channels, hidden or 4 * channels)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of another size."""
        require_size(x, self.map_size, "SwinBlock")
        z = x.permute(0, 2, 3, 1)
        z = z + self._attended(self.norm1(z))
        y: Tensor = z + self.mlp(self.norm2(z))
        return y.permute(0, 3, 1, 2)

    def _attended(self, z: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, H, W, C]."""
        (height, width), (tall, wide) = self.map_size, self.padded
        z = functional.pad(z, (0, 0, 0, wide - width, 0, tall - height))
        if self.shift:
            z = torch.roll(z, (-self.shift, -self.shift), (1, 2))
        z = _joined(self.attn(_windows(z, self.window)), self.window, tall, wide)
        if self.shift:
            z = torch.roll(z, (self.shift, self.shift), (1, 2))
        return z[:, :height, :width]


class _WindowAttention(nn.Module):
    """[N, windows, window^2, C] -> the same."""

    index: Tensor
    mask: Tensor | None

    def __init__(self, channels: int, heads: int, window: int, qkv_bias: bool, mask: Tensor | None) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("index", relative_position_index(window), persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)

    def forward(self, z: Tensor) -> Tensor:
        q, k, v = self.qkv(z).unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)
        if self.mask is not None:
            bias = bias + self.mask[:, None].to(bias.dtype)
        logits = q * q.shape[-1] ** -0.5 @ k.transpose(3, 4) + bias
        result: Tensor = self.proj((torch.softmax(logits, dim=4) @ v).transpose(2, 3).flatten(3))
        return result


class _Mlp(nn.Module):
    """Two linear layers with a GELU between, on the last axis."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, z: Tensor) -> Tensor:
        result: Tensor = self.fc2(functional.gelu(self.fc1(z)))
        return result
