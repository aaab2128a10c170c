"""LSK, the large selective kernel of LSKNet: PyTorch module.

Paper: "Large Selective Kernel Network for Remote Sensing Object Detection", ICCV 2023, arXiv:2303.09030.
Source of the formula: zcablii/LSKNet, ``mmrotate/models/backbones/lsknet.py``.

    a = conv0(x)    b = conv_spatial(a)    a' = conv1(a)    b' = conv2(b)
    s = sigmoid(conv_squeeze([mean over channels, max over channels] of [a', b']))
    unit(x) = x * conv(a' * s_0 + b' * s_1)
    attention(x) = x + proj_2(unit(gelu(proj_1(x))))

- ``conv0`` (5x5) and ``conv_spatial`` (7x7, dilation 3) are depthwise; ``conv1`` and ``conv2`` halve the channels. All
  convolutions have biases and keep the size.
- There is no sigmoid around ``conv``: the gate has any size and sign.
- Identity: unit: ``conv.weight`` 0 and ``conv.bias`` 1; attention: ``proj_2`` 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import ProjectedUnit, depthwise

VARIANTS = ("unit", "attention")


class LSK(nn.Module):
    """The gating unit. ``channels``: C of the map, even. ValueError where it is not.

    Keys: ``conv0.weight`` [C, 1, 5, 5], ``conv_spatial.weight`` [C, 1, 7, 7], ``conv1.weight`` and ``conv2.weight``
    [C/2, C, 1, 1], ``conv_squeeze.weight`` [2, 2, 7, 7], ``conv.weight`` [C, C/2, 1, 1], and the ``.bias`` of each.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"LSK needs an even number of channels, got {channels}")
        half = channels // 2
        self.conv0 = depthwise(channels, (5, 5))
        self.conv_spatial = depthwise(channels, (7, 7), dilation=3)
        self.conv1 = nn.Conv2d(channels, half, 1)
        self.conv2 = nn.Conv2d(channels, half, 1)
        self.conv_squeeze = nn.Conv2d(2, 2, 7, padding=3)
        self.conv = nn.Conv2d(half, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        near = self.conv0(x)
        far = self.conv_spatial(near)
        near, far = self.conv1(near), self.conv2(far)
        both = torch.cat([near, far], dim=1)
        pooled = torch.cat([both.mean(1, keepdim=True), both.amax(1, keepdim=True)], dim=1)
        selection = torch.sigmoid(self.conv_squeeze(pooled))
        gate: Tensor = self.conv(near * selection[:, :1] + far * selection[:, 1:])
        return x * gate


class LSKAttention(ProjectedUnit):
    """The unit between two 1x1 convolutions, with the shortcut, as LSKNet's stages have it.

    ``channels``: C of the map, even. ValueError where it is not. Keys: those of the unit after
    ``spatial_gating_unit.``, ``proj_1.weight`` and ``proj_2.weight`` [C, C, 1, 1], and the ``.bias`` of both.
    """

    unit = LSK
