"""Attention between positions the way the published PyTorch code computes it.

Each function takes the module of patterns/modules (for its weights) and x, and gives what that module gives. Formulas
and sources: see there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def aifi(own: Any, x: Tensor) -> Tensor:
    """Positions computed on the way, which the exporter may or may not fold, and nn.MultiheadAttention."""
    if hasattr(own, "HiLo") or hasattr(own, "effaddattention"):
        return _mixed(own, x)
    channels, height, width = x.shape[1:]
    tokens = x.flatten(2).permute(0, 2, 1)
    position = _sines(height, width, channels, by_rows=own._names[0] == "ma").to(x)
    placed = tokens + position
    tokens = own.norm1(tokens + own.get_submodule(own._names[0])(placed, placed, value=tokens)[0])
    tokens = own.norm2(tokens + own._feed_forward(tokens))
    return tokens.permute(0, 2, 1).view([-1, channels, height, width]).contiguous()


def _mixed(own: Any, x: Tensor) -> Tensor:
    """With another attention: a LayerNorm of maps written out, and what all positions share repeated for each."""
    if hasattr(own, "HiLo"):
        attended = own.HiLo(x)
    else:
        attention, tokens = own.effaddattention, x.flatten(2).transpose(2, 1)
        query = functional.normalize(attention.to_query(tokens), dim=-1)
        key = functional.normalize(attention.to_key(tokens), dim=-1)
        shares = functional.normalize((query @ attention.w_g) * x.shape[1] ** -0.5, dim=1)
        summed = torch.sum(shares * query, dim=1).unsqueeze(1).repeat(1, key.shape[1], 1)
        tokens = attention.final(attention.Proj(summed * key) + query)
        attended = tokens.transpose(2, 1).reshape(x.shape)
    x = _channels_first(own.norm1, x + attended)
    return _channels_first(own.norm2, x + own.fc2(functional.gelu(own.fc1(x))))


def _channels_first(norm: Any, x: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + norm.eps)
    return norm.weight[:, None, None] * x + norm.bias[:, None, None]


def _sines(height: int, width: int, channels: int, *, by_rows: bool) -> Tensor:
    """[1, H * W, C]"""
    rows, columns = torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32)
    grids = (rows, columns) if by_rows else (columns, rows)
    first, second = torch.meshgrid(*grids, indexing="ij")
    rate = 1.0 / (10000.0 ** (torch.arange(channels // 4, dtype=torch.float32) / (channels // 4)))
    angles = [grid.flatten()[..., None] @ rate[None] for grid in (first, second)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], 1)[None]


def mhsa(own: Any, x: Tensor) -> Tensor:
    """timm's bottleneck attention with its position logits by padding and reshaping, or the YOLO port's."""
    batch, channels, height, width = x.shape
    if not hasattr(own, "qkv"):
        q, k, v = (layer(x).view(batch, own.heads, -1, height * width) for layer in (own.query, own.key, own.value))
        weights = torch.softmax(torch.matmul(q.permute(0, 1, 3, 2), k), dim=-1)
        return torch.matmul(v, weights.permute(0, 1, 3, 2)).view(batch, channels, height, width)
    heads, keys = own.heads, own.heads * own.key_dim
    q, k, v = torch.split(own.qkv(x), [keys, keys, channels], dim=1)
    q = q.reshape(batch * heads, own.key_dim, -1).transpose(-1, -2)
    k = k.reshape(batch * heads, own.key_dim, -1)
    v = v.reshape(batch * heads, channels // heads, -1).transpose(-1, -2)
    grid = q.reshape(batch * heads, height, width, -1)
    by_column = _relative(grid, own.pos_embed.width_rel, (0, 1, 3, 2, 4))
    by_row = _relative(grid.transpose(1, 2), own.pos_embed.height_rel, (0, 3, 1, 4, 2))
    position = (by_row + by_column).reshape(batch * heads, height * width, height * width)
    logits = (q @ k) * own.key_dim**-0.5 + position
    return (logits.softmax(dim=-1) @ v).transpose(-1, -2).reshape(batch, channels, height, width)


def _relative(q: Tensor, table: Tensor, order: tuple[int, ...]) -> Tensor:
    """q [B, h, w, d] and offsets along w [2w - 1, d] -> logits for every pair of places, with their axes in ``order``.

    Rows are shifted against each other by padding, flattening and cutting.
    """
    batch, height, width, _ = q.shape
    every = (q @ table.transpose(-1, -2)).reshape(-1, width, 2 * width - 1)
    padded = functional.pad(functional.pad(every, [0, 1]).flatten(1), [0, width - 1])
    shifted = padded.reshape(-1, width + 1, 2 * width - 1)[:, :width, width - 1 :]
    whole = shifted.reshape(batch, height, 1, width, width).expand(-1, -1, height, -1, -1)
    return whole.permute(order)


def swin(own: Any, x: Tensor) -> Tensor:
    """Tokens, windows folded into the batch, torch.roll, the bias gathered from its table."""
    batch, channels, height, width = x.shape
    tokens = x.flatten(2).transpose(1, 2)
    z = own.norm1(tokens).view(batch, height, width, channels)
    (tall, wide), shift, window = own.padded, own.shift, own.window
    z = functional.pad(z, (0, 0, 0, wide - width, 0, tall - height))
    if shift:
        z = torch.roll(z, shifts=(-shift, -shift), dims=(1, 2))
    z = z.view(batch, tall // window, window, wide // window, window, channels)
    z = z.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window * window, channels)
    z = _in_windows(own.attn, z)
    z = z.view(batch, tall // window, wide // window, window, window, channels)
    z = z.permute(0, 1, 3, 2, 4, 5).contiguous().view(batch, tall, wide, channels)
    if shift:
        z = torch.roll(z, shifts=(shift, shift), dims=(1, 2))
    tokens = tokens + z[:, :height, :width, :].reshape(batch, height * width, channels)
    tokens = tokens + own.mlp(own.norm2(tokens))
    return tokens.transpose(1, 2).reshape(batch, channels, height, width)


def _in_windows(attention: Any, z: Tensor) -> Tensor:
    """[windows of all images, window^2, C] -> the same."""
    count, places, channels = z.shape
    heads = attention.heads
    qkv = attention.qkv(z).reshape(count, places, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv[0] * (channels // heads) ** -0.5, qkv[1], qkv[2]
    logits = q @ k.transpose(-2, -1)
    bias = attention.relative_position_bias_table[attention.index.view(-1)].view(places, places, -1)
    logits = logits + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
    if attention.mask is not None:
        mask = attention.mask
        windows = mask.shape[-3]
        mask = mask.reshape(windows, 1, places, places)
        logits = (logits.view(count // windows, windows, heads, places, places) + mask.unsqueeze(0)).view(
            -1, heads, places, places
        )
    z = (torch.softmax(logits, dim=-1) @ v).transpose(1, 2).reshape(count, places, channels)
    result: Tensor = attention.proj(z)
    return result
