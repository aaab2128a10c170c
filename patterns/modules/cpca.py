"""CPCA, channel prior convolutional attention: PyTorch module.

Paper: "Channel Prior Convolutional Attention for Medical Image Segmentation", arXiv:2306.05196.
Source of the formula: Cuthbert-Huang/CPCANet, ``CPCANet.py``, class RepBlock.

    mlp(p) = fc2(relu(fc1(p)))
    u = gelu(conv(x))        c = sigmoid(mlp(mean of u)) + sigmoid(mlp(max of u))        v = u * c
    s = dconv5_5(v)          s' = s + sum over k in 7, 11, 21 of dconv{k}_1(dconv1_{k}(s))
    y = conv(conv(s') * v)

- One and the same 1x1 convolution ``conv`` is used three times.
- c is a sum of two sigmoids, between 0 and 2, and not the sigmoid of a sum.
- All convolutions have biases; the ``dconv`` are depthwise and keep the size, 1 x k before k x 1.
- There is no shortcut and no setting that makes the block an identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..forms import CPCA_STRIPS
from .layers import depthwise, require_widths


class CPCA(nn.Module):
    """``channels``: C of the map. ``hidden``: width of the channel attention's hidden layer, C/4 as published.

    Keys: ``ca.fc1.weight`` [R, C, 1, 1], ``ca.fc2.weight`` [C, R, 1, 1], ``dconv5_5.weight`` [C, 1, 5, 5],
    ``dconv1_{k}.weight`` [C, 1, 1, k] and ``dconv{k}_1.weight`` [C, 1, k, 1] for k = 7, 11, 21, ``conv.weight``
    [C, C, 1, 1], and the ``.bias`` of each. ValueError for widths below 1.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        require_widths("CPCA", channels, hidden)
        self.ca = _ChannelAttention(channels, hidden)
        self.dconv5_5 = depthwise(channels, (5, 5))
        for k in CPCA_STRIPS:
            self.add_module(f"dconv1_{k}", depthwise(channels, (1, k)))
            self.add_module(f"dconv{k}_1", depthwise(channels, (k, 1)))
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        u = functional.gelu(self.conv(x))
        v = u * self.ca(u)
        first = self.dconv5_5(v)
        total = first
        for k in CPCA_STRIPS:
            total = total + self.get_submodule(f"dconv{k}_1")(self.get_submodule(f"dconv1_{k}")(first))
        y: Tensor = self.conv(self.conv(total) * v)
        return y


class _ChannelAttention(nn.Module):
    """[N, C, H, W] -> [N, C, 1, 1], between 0 and 2."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        mean, largest = u.mean((2, 3), keepdim=True), u.amax((2, 3), keepdim=True)
        return torch.sigmoid(self._mlp(mean)) + torch.sigmoid(self._mlp(largest))

    def _mlp(self, pooled: Tensor) -> Tensor:
        result: Tensor = self.fc2(functional.relu(self.fc1(pooled)))
        return result
