"""What two variants of AIFI attend with: PyTorch modules of SwiftFormer's additive attention and of LITv2's HiLo.

Sources of the formulas: Amshaker/SwiftFormer, ``models/swiftformer.py``, ``EfficientAdditiveAttnetion`` with one head
(arXiv:2303.15446), and ziplab/LITv2, ``hilo.py``, ``HiLo`` (arXiv:2205.13213).

    additive   y = final(Proj(g * k) + q), g = sum_i a_i q_i, a = q w_g over its length over the positions,
               q = to_query(x) and k = to_key(x), each over its length over the channels
    HiLo       y = [h_proj(attention of h_qkv(x) within windows), l_proj(attention of l_q(x) to l_kv(means of windows))]

- A map that the window does not divide has zeros below and to the right of it, as in the authors' code for detection:
  the collections' own raises there.
- No dropout. The scale that the additive weights are multiplied with counts only where their length is below 1e-12.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..forms import HiLoHeads
from .layers import require_heads


class EfficientAdditive(nn.Module):
    """Keys: ``to_query``, ``to_key``, ``Proj``, ``final`` [C, C], each with ``.{weight,bias}``, ``w_g`` [C, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_query, self.to_key = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.w_g = nn.Parameter(torch.randn(channels, 1))
        self.Proj, self.final = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        tokens = x.flatten(2).transpose(1, 2)
        q, k = (functional.normalize(layer(tokens), dim=2) for layer in (self.to_query, self.to_key))
        shares = functional.normalize(q @ self.w_g * x.shape[1] ** -0.5, dim=1)
        g = (shares * q).sum(dim=1, keepdim=True)
        y: Tensor = self.final(self.Proj(g * k) + q)
        return y.transpose(1, 2).reshape(x.shape)


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of [..., positions, d]."""
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v


class HiLo(nn.Module):
    """``heads``: a divisor of the channels. ``window``: side of a window. ``bias``: whether q, k and v have biases.

    Keys, with L and H channels for low and high frequencies: ``l_q`` [L, C], ``l_kv`` [2L, C], ``l_proj`` [L, L],
    ``h_qkv`` [3H, C], ``h_proj`` [H, H], each with ``.{weight,bias}``.
    """

    def __init__(self, channels: int, heads: HiLoHeads, bias: bool) -> None:
        super().__init__()
        require_heads("HiLo", channels, heads.count)
        if heads.window < 1 or not 0 <= heads.alpha <= 1:
            raise ValueError(
                f"HiLo needs a window of at least 1 and an alpha from 0 to 1, got {heads.window} and {heads.alpha}"
            )
        self.heads = heads
        width = channels // heads.count
        low, high = heads.low * width, heads.high * width
        if low:
            self.l_q, self.l_kv = nn.Linear(channels, low, bias), nn.Linear(channels, 2 * low, bias)
            self.l_proj = nn.Linear(low, low)
        if high:
            self.h_qkv, self.h_proj = nn.Linear(channels, 3 * high, bias), nn.Linear(high, high)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        side, (height, width) = self.heads.window, x.shape[2:]
        x = functional.pad(x, (0, -width % side, 0, -height % side)).permute(0, 2, 3, 1)
        parts = [self._high(x)] if self.heads.high else []
        parts += [self._low(x)] if self.heads.low else []
        return torch.cat(parts, dim=3)[:, :height, :width].permute(0, 3, 1, 2)

    def _high(self, x: Tensor) -> Tensor:
        (count, height, width, _), side, heads = x.shape, self.heads.window, self.heads.high
        qkv = self.h_qkv(x).reshape(count, height // side, side, width // side, side, 3, heads, -1)
        # q, k and v as [N, rows, columns, heads, side * side, d]
        q, k, v = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).unbind(0)
        o = attended(q, k, v).reshape(count, height // side, width // side, heads, side, side, -1)
        y: Tensor = self.h_proj(o.permute(0, 1, 4, 2, 5, 3, 6).reshape(count, height, width, -1))
        return y

    def _low(self, x: Tensor) -> Tensor:
        heads, (count, height, width, _) = self.heads.low, x.shape
        means = functional.avg_pool2d(x.permute(0, 3, 1, 2), self.heads.window).flatten(2).transpose(1, 2)
        q = self.l_q(x).reshape(count, height * width, heads, -1).transpose(1, 2)
        k, v = self.l_kv(means).reshape(count, means.shape[1], 2, heads, -1).permute(2, 0, 3, 1, 4)
        y: Tensor = self.l_proj(attended(q, k, v).transpose(1, 2).reshape(count, height, width, -1))
        return y
