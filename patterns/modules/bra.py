"""BRA, bi-level routing attention of BiFormer: PyTorch module.

Paper: "BiFormer: Vision Transformer with Bi-Level Routing Attention", CVPR 2023, arXiv:2303.08810.
Source of the formula: rayleizhu/BiFormer, ``ops/bra_legacy.py`` (official) and ``ops/bra_nchw.py`` (nchw).

    [q, k, v] = qkv(x)
    r         = the topk windows whose mean of k has the largest product with the window's mean of q
    y         = out(o + dw(v)), o = v softmax(q^T k / sqrt(C_qk))^T for each head, over the positions of r

- The scale is that of all channels of a query, not of a head's.
- official: ``windows`` windows along either side. A map that these do not divide is padded with zeros below and to the
  right, before qkv: what is padded has the biases as keys and values, and takes part.
- nchw: windows of H // ``windows`` by W // ``windows``, of which there are more where that leaves a rest. q, k and v
  are padded with zeros, dw(v) and the means do not see what is padded, and the attention does: with logits of 0.
- Published: 7 windows along a side and 1, 4 or 16 of them read, dw 5x5, heads of 32 channels; modules on their own
  begin with 4 windows, dw 3x3 and 8 heads.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..forms import BRA_LAYERS, bra_windows
from .layers import Described, depthwise, place, require_heads, require_variant


class BRA(Described):
    """Attention from every window to the windows that fit it best.

    ``channels``: C of the map. ``variant``: ``official`` or ``nchw``. ``heads``: divides C. ``windows``: along a side.
    ``topk``: windows that a window reads. ``kernel``: side of the depthwise convolution. ``qk_dim``: channels of
    queries and keys, C where not given. ValueError for settings that do not fit together, and in ``forward`` for a map
    of fewer windows than ``topk``.

    Keys of official: ``qkv.qkv`` [2 C_qk + C, C], ``wo`` [C, C]; of nchw: ``qkv_linear`` [3 C, C, 1, 1],
    ``output_linear`` [C, C, 1, 1]; of both ``lepe`` [C, 1, k, k], each with ``.{weight,bias}``.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "variant", "heads", "windows", "topk", "kernel", "qk_dim")

    def __init__(
        self,
        channels: int,
        variant: str = "official",
        heads: int = 8,
        windows: int = 7,
        topk: int = 4,
        kernel: int = 3,
        qk_dim: int | None = None,
    ) -> None:
        super().__init__()
        require_variant("BRA", variant, BRA_LAYERS)
        require_heads("BRA", channels, heads)
        keys = qk_dim or channels
        if windows < 1 or topk < 1 or kernel % 2 == 0 or keys % heads or (variant == "nchw" and keys != channels):
            raise ValueError(
                "BRA needs windows and topk of at least 1, an odd kernel and a qk_dim that the heads divide (nchw: C), "
                f"got {windows}, {topk}, {kernel} and {qk_dim}"
            )
        self.channels, self.variant, self.heads, self.windows = channels, variant, heads, windows
        self.topk, self.kernel, self.qk_dim = topk, kernel, keys
        layer = nn.Linear if variant == "official" else partial(nn.Conv2d, kernel_size=1)
        first, last = BRA_LAYERS[variant]
        self.lepe = depthwise(channels, (kernel, kernel))
        place(self, first, layer(channels, 2 * keys + channels))
        place(self, last, layer(channels, channels))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        layer = self.get_submodule(name)
        y: Tensor = layer(x) if self.variant == "nchw" else layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        height, width = x.shape[2:]
        if self.variant == "nchw" and min(height, width) < self.windows:
            raise ValueError(f"BRA cannot cut a {height}x{width} map into {self.windows} windows along a side")
        (rows, tall), (columns, wide) = (bra_windows(self.variant, side, self.windows) for side in (height, width))
        if rows * columns < self.topk:
            raise ValueError(f"BRA cannot read {self.topk} windows of {rows * columns}")
        first, last = BRA_LAYERS[self.variant]
        rest = (0, columns * wide - width, 0, rows * tall - height)
        if self.variant == "official":
            x = F.pad(x, rest)
        q, k, v = torch.split(self._linear(first, x), [self.qk_dim, self.qk_dim, self.channels], dim=1)
        means = [
            F.avg_pool2d(each.detach(), (tall, wide), ceil_mode=True, count_include_pad=False).flatten(2)
            for each in (q, k)
        ]
        near = self.lepe(v)[:, :, :height, :width]
        if self.variant == "nchw":
            q, k, v = (F.pad(each, rest) for each in (q, k, v))
        read = torch.topk(means[0].transpose(1, 2) @ means[1], self.topk, dim=2).indices  # [N, windows, topk]
        q, k, v = (self._in_windows(each, rows, columns) for each in (q, k, v))  # [N, windows, heads, positions, d]
        keys, values = (self._gathered(each, read) for each in (k, v))
        weights = torch.softmax(q * self.qk_dim**-0.5 @ keys.transpose(3, 4), dim=4)
        o = (weights @ values).transpose(3, 4).reshape(len(x), rows, columns, self.channels, tall, wide)
        o = o.permute(0, 3, 1, 4, 2, 5).reshape(len(x), self.channels, rows * tall, columns * wide)
        return self._linear(last, o[:, :, :height, :width] + near)

    def _in_windows(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """[N, heads * d, H, W] -> [N, windows, heads, positions, d]."""
        count, channels, height, width = x.shape
        x = x.reshape(count, channels, rows, height // rows, columns, width // columns).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(count, rows * columns, -1, self.heads, channels // self.heads).transpose(2, 3)

    @staticmethod
    def _gathered(x: Tensor, read: Tensor) -> Tensor:
        """Of [N, windows, heads, positions, d] what each window reads: [N, windows, heads, topk * positions, d]."""
        image = torch.arange(len(x), device=x.device)[:, None, None]
        return x[image, read].transpose(2, 3).flatten(3, 4)
