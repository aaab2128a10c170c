"""CloAttention, context-aware local attention of CloFormer, of two kinds of heads: PyTorch module.

Paper: "Rethinking Local Perception in Lightweight Vision Transformer", arXiv:2303.17803.
Source of the formula: z1069614715/objectdetection_script, ``cv-attention/CloAttention.py``, ``EfficientAttention``,
which is CloFormer's.

    local heads     [q, k, v] = dw(qkv(x)),   a = tanh(f2(swish(f1(q * k))) / sqrt(d)) * v
    global heads    b = v softmax(q^T k / sqrt(d))^T,   q = global_q(x), [k, v] = global_kv(means of x over s x s)
    y = proj([a, b])

- All heads have d = C/heads channels; ``qkv``, ``f1``, ``f2``, ``global_q``, ``global_kv`` and ``proj`` are 1x1.
- Of a map that s does not divide, the rest at the right and below is in no mean; the published code raises there.
- There is no shortcut, and no identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Redrawable, depthwise, named, require_heads


class CloAttention(Redrawable):
    """Local heads by depthwise convolutions, global ones by attention to means of the map.

    ``channels``: C of the map. ``heads``: a divisor of C. ``local_heads``: how many of them are local, at least 1 and
    fewer than all. ``kernel``: side of the depthwise convolution, odd. ``window``: s. ``qkv_bias``: whether q, k, v and
    the projection have biases. ValueError for settings that do not fit together.

    Keys, for L the channels of all local heads and G = C - L: ``qkvs.0.weight`` [3L, C, 1, 1], ``convs.0.weight``
    [3L, 1, k, k], ``act_blocks.0.act_block.{0,2}.weight`` [L, L, 1, 1], ``global_q.weight`` [G, C, 1, 1],
    ``global_kv.weight`` [2G, C, 1, 1], ``proj.weight`` [C, C, 1, 1], and the ``.bias`` of each.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "heads", "local_heads", "window")

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        local_heads: int = 4,
        kernel: int = 5,
        window: int = 4,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        require_heads("CloAttention", channels, heads)
        if not 0 < local_heads < heads or window < 1 or kernel % 2 == 0:
            raise ValueError(
                "CloAttention needs local_heads between 0 and heads, a window of at least 1 and an odd kernel, "
                f"got {local_heads} of {heads}, {window} and {kernel}"
            )
        self.channels, self.heads, self.local_heads, self.window = channels, heads, local_heads, window
        self.head_dim = channels // heads
        near = local_heads * self.head_dim
        far = channels - near
        self.qkvs = nn.ModuleList([nn.Conv2d(channels, 3 * near, 1, bias=qkv_bias)])
        self.convs = nn.ModuleList([depthwise(3 * near, (kernel, kernel))])
        layers = nn.Sequential(nn.Conv2d(near, near, 1), nn.SiLU(), nn.Conv2d(near, near, 1))
        self.act_blocks = nn.ModuleList([named(act_block=layers)])
        self.global_q = nn.Conv2d(channels, far, 1, bias=qkv_bias)
        self.global_kv = nn.Conv2d(channels, 2 * far, 1, bias=qkv_bias)
        self.avgpool = nn.AvgPool2d(window, window) if window > 1 else nn.Identity()
        self.proj = nn.Conv2d(channels, channels, 1, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        q, k, v = self.convs[0](self.qkvs[0](x)).chunk(3, dim=1)
        near = torch.tanh(self.act_blocks[0](q * k) * self.head_dim**-0.5) * v
        y: Tensor = self.proj(torch.cat([near, self._attended(x)], dim=1))
        return y

    def _attended(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, G, H, W]."""
        heads = self.heads - self.local_heads
        q = self.global_q(x).flatten(2).unflatten(1, (heads, -1))
        k, v = self.global_kv(self.avgpool(x)).flatten(2).unflatten(1, (2, heads, -1)).unbind(1)
        weights = torch.softmax(q.transpose(2, 3) @ k * self.head_dim**-0.5, dim=3)
        found: Tensor = v @ weights.transpose(2, 3)
        return found.reshape(x.shape[0], -1, *x.shape[2:])
