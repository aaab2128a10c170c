"""CoT, contextual transformer attention: PyTorch modules of its two functions.

Paper: "Contextual Transformer Networks for Visual Recognition", arXiv:2107.12292.
Sources of the formulas: xmu-xiaoma666/External-Attention-pytorch, ``model/attention/CoTAttention.py``, and
JDAI-CV/CoTNet, ``models/cotnet.py``, ``CotLayer``, which is the authors'.

    k = relu(BN(conv(x))),  4 groups
    external-attention   y = k + softmax over all positions of (mean over taps of f([k, x])) * v,   v = BN(conv1x1(x))
    cotnet               z = swish(BN(sum over taps t of w_t * v_t)),   w = GN(f([x, k])),   y = a z + (1 - a) k
                         (a, 1 - a) = softmax over the two of g(mean over (H, W) of (z + k)), per channel
    f = conv1x1(relu(BN(conv1x1))),   g = conv1x1(relu(BN(conv1x1)))

- The taps are the kernel^2 neighbours; what is outside of the map is 0.
- ``cotnet``: one weight for each tap and C/8 channels; channel c has those of c mod C/8. The GroupNorm is over the taps
  of each, and over the whole map.
- There is no shortcut, and no identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Redrawable

_GROUPS = 4
_SHARED = 8


def _key_embed(channels: int, kernel: int, eps: float) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=_GROUPS, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels, eps=eps), nn.ReLU())


def _pointwise_bn(inputs: int, outputs: int, eps: float, *, bias: bool = False) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=bias), nn.BatchNorm2d(outputs, eps=eps)]


def _require(name: str, channels: int, divisor: int, kernel: int) -> None:
    if channels < 1 or channels % divisor or kernel % 2 == 0:
        raise ValueError(f"{name} needs channels that {divisor} divides and an odd kernel, got {channels} and {kernel}")


class CoTAttention(Redrawable):
    """The attention of a collection: a softmax over all positions, weights that are means over the taps.

    ``channels``: C of the map, a multiple of 4. ``kernel``: side of the neighbourhood, odd. ``bn_eps``: eps of the
    BatchNorms. ValueError for settings that do not fit together.

    Keys: ``key_embed.0.weight`` [C, C/4, k, k], ``value_embed.0.weight`` [C, C, 1, 1], ``attention_embed.0.weight``
    [C/2, 2C, 1, 1], ``attention_embed.3.{weight,bias}`` [k^2 C, C/2, 1, 1], and
    ``{key,value,attention}_embed.1.{weight,bias,running_mean,running_var}``.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "kernel")

    def __init__(self, channels: int, kernel: int = 3, bn_eps: float = 1e-5) -> None:
        super().__init__()
        _require("CoTAttention", channels, _GROUPS, kernel)
        self.channels, self.kernel = channels, kernel
        self.key_embed = _key_embed(channels, kernel, bn_eps)
        self.value_embed = nn.Sequential(*_pointwise_bn(channels, channels, bn_eps))
        self.attention_embed = nn.Sequential(
            *_pointwise_bn(2 * channels, channels // 2, bn_eps),
            nn.ReLU(),
            nn.Conv2d(channels // 2, kernel**2 * channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        k = self.key_embed(x)
        logits = self.attention_embed(torch.cat([k, x], dim=1)).unflatten(1, (self.channels, -1)).mean(dim=2)
        weights = torch.softmax(logits.flatten(2), dim=2).reshape(x.shape)
        y: Tensor = k + weights * self.value_embed(x)
        return y


class CotLayer(Redrawable):
    """The authors' layer: an aggregation of the neighbours with weights out of the map, and a choice between both.

    ``channels``: C of the map, a multiple of 8. ``kernel``: side of the neighbourhood, odd. ``bn_eps``: eps of the
    BatchNorms. ValueError for settings that do not fit together.

    Keys: ``key_embed.0.weight`` [C, C/4, k, k], ``embed.0.weight`` [C/2, 2C, 1, 1], ``embed.3.{weight,bias}``
    [k^2 C/8, C/2, 1, 1], ``embed.4.{weight,bias}``, ``conv1x1.0.weight`` [C, C, 1, 1], ``se.0.{weight,bias}``
    [A, C, 1, 1] and ``se.3.{weight,bias}`` [2C, A, 1, 1] for A = max(C/2, 32), and the BatchNorms ``key_embed.1``,
    ``embed.1``, ``conv1x1.1``, ``bn`` and ``se.1``.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    described_by = ("channels", "kernel")

    def __init__(self, channels: int, kernel: int = 3, bn_eps: float = 1e-5) -> None:
        super().__init__()
        _require("CotLayer", channels, _SHARED, kernel)
        self.channels, self.kernel = channels, kernel
        shared, inner = channels // _SHARED, max(channels // 2, 32)
        self.key_embed = _key_embed(channels, kernel, bn_eps)
        self.embed = nn.Sequential(
            *_pointwise_bn(2 * channels, channels // 2, bn_eps),
            nn.ReLU(),
            nn.Conv2d(channels // 2, kernel**2 * shared, 1),
            nn.GroupNorm(shared, kernel**2 * shared),
        )
        self.conv1x1 = nn.Sequential(*_pointwise_bn(channels, channels, bn_eps))
        self.bn = nn.BatchNorm2d(channels, eps=bn_eps)
        self.se = nn.Sequential(
            *_pointwise_bn(channels, inner, bn_eps, bias=True), nn.ReLU(), nn.Conv2d(inner, 2 * channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        k, shared = self.key_embed(x), self.channels // _SHARED
        weights = self.embed(torch.cat([x, k], dim=1)).flatten(2).unflatten(1, (1, shared, self.kernel**2))
        taps = functional.unfold(self.conv1x1(x), self.kernel, padding=self.kernel // 2)
        z = (taps.reshape(x.shape[0], _SHARED, shared, self.kernel**2, -1) * weights).sum(dim=3).reshape(x.shape)
        z = functional.silu(self.bn(z))
        choice = self.se((z + k).mean(dim=(2, 3), keepdim=True)).unflatten(1, (self.channels, 2))
        own, other = torch.softmax(choice, dim=2).unbind(2)
        y: Tensor = own * z + other * k
        return y
