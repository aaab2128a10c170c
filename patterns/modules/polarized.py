"""Polarized self-attention, parallel and sequential: PyTorch module.

Paper: "Polarized Self-Attention: Towards High-quality Pixel-wise Regression", arXiv:2107.00782.
Sources of the formula: DeLightCMU/PSA, ``semantic-segmentation/network/PSA.py`` (classes PSA_p and PSA_s), and for the
two external variants xmu-xiaoma666/External-Attention-pytorch, which computes something else. With positions n of the
map, means over them, and softmax_n over them:

    p, s                channel gate  g = sigmoid(up(sum_n softmax_n(q_r(x)) v_r(x)_n))
    p                   spatial gate  h = sigmoid(softmax_n(sum_c mean(q_l(x))_c v_l(x)_cn))     y = g * x + h * x
    s                   spatial gate  h = sigmoid(sum_c mean(q_l(x))_c softmax_n(v_l(x))_cn)     y = h * (g * x),
                        h taken from g * x
    external-p, -s      channel gate  g = sigmoid(ln(ch_wz(sum_n softmax_n(ch_wq(x)) ch_wv(x)_n)))
                        spatial gate  h = sigmoid(sum_c softmax_c(mean(sp_wq(x)))_c sp_wv(x)_cn)
                        y = g * x + h * x, or y = h * (g * x) with h taken from g * x

- q_r, v_r, q_l, v_l stand for ``conv_q_right``, ``conv_v_right``, ``conv_q_left``, ``conv_v_left``: 1x1 convolutions
  without biases, to 1, C/2, C/2 and C/2 channels. Those of the external variants have biases.
- up is one 1x1 convolution without bias in p; in s two of them with biases, C/2 to C/8 to C, with LayerNorm and ReLU
  between. ln is a LayerNorm over the C channels.
- Not to be confused with pyramid squeeze attention, nor with Ultralytics' PSA.
- There is no setting that makes a variant an identity: p adds two gates, and the spatial gates depend on x.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Described, require_variant

VARIANTS = ("p", "s", "external-p", "external-s")


class Polarized(Described):
    """``channels``: C of the map, even; for s at least 8. ``variant``: one of VARIANTS. ValueError otherwise.

    Keys of p and s: ``conv_q_right.weight`` [1, C, 1, 1], ``conv_v_right.weight``, ``conv_q_left.weight`` and
    ``conv_v_left.weight`` [C/2, C, 1, 1]; ``conv_up.weight`` [C, C/2, 1, 1] in p; in s ``conv_up.0.weight``
    [C/8, C/2, 1, 1], ``conv_up.1.weight`` [C/8, 1, 1], ``conv_up.3.weight`` [C, C/8, 1, 1] and the ``.bias`` of each.
    Keys of the external ones: ``ch_wv``, ``sp_wv`` and ``sp_wq`` [C/2, C, 1, 1], ``ch_wq`` [1, C, 1, 1], ``ch_wz``
    [C, C/2, 1, 1], ``ln`` [C], each with ``.weight`` and ``.bias``.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("variant",)

    def __init__(self, channels: int, variant: str = "p") -> None:
        super().__init__()
        require_variant("Polarized", variant, VARIANTS)
        least = 8 if variant == "s" else 2
        if channels < least or channels % 2:
            raise ValueError(f"Polarized {variant} needs an even number of channels from {least} on, got {channels}")
        self.variant = variant
        half = channels // 2
        if variant in ("p", "s"):
            self.conv_q_right = nn.Conv2d(channels, 1, 1, bias=False)
            self.conv_v_right = nn.Conv2d(channels, half, 1, bias=False)
            self.conv_up: nn.Module = nn.Conv2d(half, channels, 1, bias=False)
            if variant == "s":
                eighth = half // 4
                self.conv_up = nn.Sequential(
                    nn.Conv2d(half, eighth, 1), nn.LayerNorm([eighth, 1, 1]), nn.ReLU(), nn.Conv2d(eighth, channels, 1)
                )
            self.conv_q_left = nn.Conv2d(channels, half, 1, bias=False)
            self.conv_v_left = nn.Conv2d(channels, half, 1, bias=False)
        else:
            self.ch_wv = nn.Conv2d(channels, half, 1)
            self.ch_wq = nn.Conv2d(channels, 1, 1)
            self.ch_wz = nn.Conv2d(half, channels, 1)
            self.ln = nn.LayerNorm(channels)
            self.sp_wv = nn.Conv2d(channels, half, 1)
            self.sp_wq = nn.Conv2d(channels, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        by_channel = x * torch.sigmoid(self._channel(x))
        if self.variant.endswith("p"):
            return by_channel + x * torch.sigmoid(self._spatial(x))
        return by_channel * torch.sigmoid(self._spatial(by_channel))

    def _channel(self, x: Tensor) -> Tensor:
        """What the channel gate is the sigmoid of, [N, C, 1, 1]."""
        external = self.variant.startswith("external")
        query, value = (self.ch_wq, self.ch_wv) if external else (self.conv_q_right, self.conv_v_right)
        weight = torch.softmax(query(x).flatten(2), dim=2)
        context = (value(x).flatten(2) @ weight.transpose(1, 2)).unsqueeze(3)
        if not external:
            up: Tensor = self.conv_up(context)
            return up
        normal: Tensor = self.ln(self.ch_wz(context).flatten(1))
        return normal[:, :, None, None]

    def _spatial(self, x: Tensor) -> Tensor:
        """What the spatial gate is the sigmoid of, [N, 1, H, W]."""
        external = self.variant.startswith("external")
        query, value = (self.sp_wq, self.sp_wv) if external else (self.conv_q_left, self.conv_v_left)
        pooled: Tensor = query(x).mean((2, 3)).unsqueeze(1)
        if external:
            pooled = torch.softmax(pooled, dim=2)
        values: Tensor = value(x).flatten(2)
        if self.variant == "s":
            values = torch.softmax(values, dim=2)
        context = pooled @ values
        if self.variant == "p":
            context = torch.softmax(context, dim=2)
        return context.reshape(x.shape[0], 1, x.shape[2], x.shape[3])
