"""ACmix, self-attention and convolution out of the same three projections: PyTorch module.

Paper: "On the Integration of Self-Attention and Convolution", CVPR 2022, arXiv:2111.14556.
Source of the formula: LeapLabTHU/ACmix, ``ResNet/test_bottleneck.py``, ``ACmix`` with stride and dilation 1.

    y = rate1 * attention + rate2 * convolution,   q = conv1(x), k = conv2(x), v = conv3(x)
    attention     sum_j softmax_j(q_i . (k_j + p_i - p_j) / sqrt(d)) v_j for each head; j: the kernel^2 neighbours of i
    convolution   dep_conv(f): f has nine maps for each of the d channels of a head, each a mixture of that channel in
                  q, k and v of all heads (fc); dep_conv is one convolution for each of the d

- p = conv_p(coordinates), which run from -1 to 1 along either side of the map. p_i and the bias of conv_p add the same
  to all logits of a position.
- Neighbours outside of the map are reflected at its border; f is 0 there.
- The channels of the attention are head after head, those of dep_conv the heads of one channel after those of another:
  so they are in the published code, where both are added.
- dep_conv begins as shifts, and the rates at 0.5. Its bias is gone in the authors' code, whose initialisation returns
  None for it; ports that mend that have one.
- The kernel of the attention leaves no trace in the weights.
- There is no shortcut, and no identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Described, require_heads, tracing

_SIDE = 3
"""of the convolution"""


class ACmix(Described):
    """``channels``: C of the map. ``heads``: a divisor of it. ``kernel``: side of the attention's neighbourhood, odd.
    ``conv_bias``: whether the convolution has a bias. ValueError for settings that do not fit together.

    Keys, with d = C / heads: ``conv1``, ``conv2``, ``conv3`` [C, C, 1, 1] and ``conv_p`` [d, 2, 1, 1], each with
    ``.{weight,bias}``, ``fc.weight`` [9, 3 heads, 1, 1], ``dep_conv.weight`` [C, 9, 3, 3], perhaps ``dep_conv.bias``,
    ``rate1`` and ``rate2`` [1].
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "heads", "kernel")

    def __init__(self, channels: int, heads: int = 4, kernel: int = 7, conv_bias: bool = False) -> None:
        super().__init__()
        require_heads("ACmix", channels, heads)
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"ACmix needs an odd kernel, got {kernel}")
        self.channels, self.heads, self.kernel = channels, heads, kernel
        width = channels // heads
        self.rate1, self.rate2 = nn.Parameter(torch.full((1,), 0.5)), nn.Parameter(torch.full((1,), 0.5))
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.conv_p = nn.Conv2d(2, width, 1)
        self.fc = nn.Conv2d(3 * heads, _SIDE**2, 1, bias=False)
        self.dep_conv = nn.Conv2d(_SIDE**2 * width, channels, _SIDE, padding=1, groups=width, bias=conv_bias)
        with torch.no_grad():
            self.dep_conv.weight.copy_(torch.eye(_SIDE**2).reshape(_SIDE**2, _SIDE, _SIDE))
            if self.dep_conv.bias is not None:
                self.dep_conv.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map that is too small to be reflected."""
        border = self.kernel // 2
        if not tracing() and border >= min(x.shape[2:]):
            raise ValueError(
                f"ACmix reflects {border} positions at the border of the map, and a map of "
                f"{x.shape[2]}x{x.shape[3]} is too small for that"
            )
        q, k, v = self.conv1(x), self.conv2(x), self.conv3(x)
        y: Tensor = self.rate1 * self._attended(q, k, v) + self.rate2 * self._convolved(q, k, v)
        return y

    def _places(self, x: Tensor) -> Tensor:
        """p, [1, d, H, W]."""
        down, right = (torch.linspace(-1, 1, side, dtype=x.dtype, device=x.device) for side in x.shape[2:])
        rows, columns = torch.meshgrid(down, right, indexing="ij")
        found: Tensor = self.conv_p(torch.stack([columns, rows])[None])
        return found

    def _neighbours(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, channels, kernel^2, H, W]."""
        border = self.kernel // 2
        near = functional.unfold(functional.pad(x, [border] * 4, mode="reflect"), self.kernel)
        return near.reshape(len(x), x.shape[1], self.kernel**2, *x.shape[2:])

    def _attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        width, places = self.channels // self.heads, self._places(q)
        q_h, k_h, v_h = (each.reshape(-1, width, *each.shape[2:]) for each in (q, k, v))
        relative = self._neighbours(k_h) + places[:, :, None] - self._neighbours(places)
        logits = (q_h[:, :, None] * width**-0.5 * relative).sum(dim=1, keepdim=True)
        found: Tensor = (torch.softmax(logits, dim=2) * self._neighbours(v_h)).sum(dim=2)
        return found.reshape(q.shape)

    def _convolved(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (count, channels, *size), heads = q.shape, self.heads
        parts = [each.reshape(count, heads, channels // heads, size[0] * size[1]) for each in (q, k, v)]
        maps = torch.cat(parts, dim=1)
        f = self.fc(maps).transpose(1, 2).reshape(count, -1, *size)
        found: Tensor = self.dep_conv(f)
        return found
