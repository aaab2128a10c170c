"""MSDA, multi-scale dilated attention of DilateFormer: PyTorch module.

Paper: "DilateFormer: Multi-Scale Dilated Transformer for Visual Recognition", arXiv:2302.01791.
Source of the formula: JIAOJIAYUASD/dilateformer, ``models/dilateformer.py``, ``MultiDilatelocalAttention``.

    [q, k, v] = qkv(x);  y = proj(a),   a_i = sum_j softmax_j(q_i . k_j / sqrt(d)) v_j for each head
    j: the kernel^2 neighbours of i at the head's dilation

- Equal parts of the heads have the dilations ``first``, ``first + step``, ...
- A neighbour outside of the map has k = v = 0: its logit is 0 and counts in the softmax.
- Heads and dilations leave no trace in the weights. Ports have the dilations 1 to 3 (the authors), 1 to 4, 2 and 3, or
  1 and 3.
- There is no shortcut, and no identity.
- The published code writes the result of the attention into its input; this module leaves it as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Redrawable, require_heads


class MultiDilateLocalAttention(Redrawable):
    """Attention to the neighbours of each position, near ones for some heads and farther ones for others.

    ``channels``: C of the map. ``heads``: a divisor of C. ``scales``: how many dilations, a divisor of the heads.
    ``first``, ``step``: the smallest dilation, and from one to the next. ``kernel``: side of the neighbourhood, odd.
    ``qkv_bias``: whether q, k and v have biases. ValueError for settings that do not fit together.

    Keys: ``qkv.weight`` [3C, C, 1, 1], ``proj.weight`` [C, C], and the ``.bias`` of each.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "heads", "dilations", "kernel")

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        scales: int = 4,
        first: int = 1,
        step: int = 1,
        kernel: int = 3,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        require_heads("MultiDilateLocalAttention", channels, heads)
        if scales < 1 or heads % scales or first < 1 or step < 1 or kernel % 2 == 0:
            raise ValueError(
                "MultiDilateLocalAttention needs scales that divide its heads, dilations of at least 1 and an odd "
                f"kernel, got {scales} for {heads}, {first} by {step} and {kernel}"
            )
        self.channels, self.heads, self.kernel = channels, heads, kernel
        self.dilations = [first + step * number for number in range(scales)]
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        maps = self.qkv(x).unflatten(1, (3, len(self.dilations), -1)).transpose(1, 2).unbind(1)
        parts = [self._attended(each, dilation) for each, dilation in zip(maps, self.dilations, strict=True)]
        y = torch.cat(parts, dim=1).reshape(x.shape)
        projected: Tensor = self.proj(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return projected

    def _attended(self, maps: Tensor, dilation: int) -> Tensor:
        """The heads of one dilation, q, k and v as [N, 3, width, H, W] -> [N, width, H * W]."""
        heads, border = self.heads // len(self.dilations), dilation * (self.kernel - 1) // 2
        q, k, v = maps.unbind(1)
        (images, width), places = q.shape[:2], q.shape[2] * q.shape[3]
        q = q.reshape(images, heads, width // heads, 1, places)
        near = [functional.unfold(z, self.kernel, dilation, border) for z in (k, v)]
        k, v = (z.reshape(images, heads, width // heads, self.kernel**2, places) for z in near)
        weights = torch.softmax((q * k).sum(dim=2, keepdim=True) * q.shape[2] ** -0.5, dim=3)
        return (weights * v).sum(dim=3).flatten(1, 2)
