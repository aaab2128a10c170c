"""LKA, large kernel attention: PyTorch modules.

Papers: "Visual Attention Network", Computational Visual Media 2023, arXiv:2202.09741, and for deformable "Beyond
Self-Attention: Deformable Large Kernel Attention for Medical Image Segmentation", WACV 2024, arXiv:2309.00121.
Sources of the formulas: Visual-Attention-Network/VAN-Classification, ``models/van.py``, ``LKA`` and ``Attention``;
xmindflow/deformableLKA, ``2D/deformable_LKA/deformable_LKA.py``, ``deformable_LKA`` and ``deformable_LKA_Attention``.

    unit       y = x * conv1(conv_spatial(conv0(x)))
    wrapper    y = x + proj_2(unit(gelu(proj_1(x))))

- deformable and deformable-wrapper are the same with two deformable convolutions, ``deform_conv`` without biases, whose
  taps are moved by ``offset_net``, a dense convolution of the same kernel and dilation: [down, right] for each tap.
  What lies between positions is read bilinearly, what is outside of the map is 0. The authors' ``_experimental``
  classes, with three layers for the moves, are left out.
- ``conv0`` is 5x5, ``conv_spatial`` 7x7 with dilation 3, both depthwise; ``conv1`` is 1x1 and dense. All have biases,
  and each pads with zeros to keep the size: together they see 23x23.
- There is no sigmoid: the gate has any size and sign.
- Identity: ``conv1.weight`` 0 and ``conv1.bias`` 1; in the wrapper ``proj_2`` 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import ProjectedUnit, depthwise, require_channels


class LKA(nn.Module):
    """Gate of every value by a large neighbourhood of its channel.

    ``channels``: C of the map. ValueError without channels.

    Keys: ``conv0.weight`` [C, 1, 5, 5], ``conv_spatial.weight`` [C, 1, 7, 7], ``conv1.weight`` [C, C, 1, 1], and
    ``.bias`` [C] of each.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(self, channels: int) -> None:
        super().__init__()
        require_channels("LKA", channels)
        self.conv0 = depthwise(channels, (5, 5))
        self.conv_spatial = depthwise(channels, (7, 7), dilation=3)
        self.conv1 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        gate: Tensor = self.conv1(self.conv_spatial(self.conv0(x)))
        return x * gate


class _DeformableConv(nn.Module):
    """A depthwise convolution whose taps are moved, that keeps the size of the map."""

    def __init__(self, channels: int, side: int, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (side // 2)
        self.offset_net = nn.Conv2d(channels, 2 * side * side, side, padding=padding, dilation=dilation)
        self.deform_conv = depthwise(channels, (side, side), dilation=dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        (count, channels, *size), (side, _) = x.shape, self.deform_conv.kernel_size
        steps = (torch.arange(side, dtype=x.dtype, device=x.device) - side // 2) * self.deform_conv.dilation[0]
        rows, columns = (torch.arange(length, dtype=x.dtype, device=x.device) for length in size)
        down, right = (own[:, None] + steps for own in (rows, columns))
        moves = self.offset_net(x).reshape(count, side, side, 2, *size).permute(0, 4, 1, 5, 2, 3)
        # the taps of a position beside each other: [N, H, k, W, k, 2]
        places = torch.stack([moves[..., 0] + down[:, :, None, None], moves[..., 1] + right], dim=-1)
        # -1 and 1 are the outer edges of the outermost positions
        places = (2 * places + 1) / torch.tensor(size, dtype=x.dtype, device=x.device) - 1
        places = places.flip(-1).reshape(count, size[0] * side, size[1] * side, 2)
        read = functional.grid_sample(x, places, align_corners=False)
        return functional.conv2d(read, self.deform_conv.weight, stride=side, groups=channels)


class DeformableLKA(nn.Module):
    """Gate of every value by a large neighbourhood of its channel, of which the positions are found.

    ``channels``: C of the map. ValueError without channels.

    Keys: for ``conv0`` with k = 5 and ``conv_spatial`` with k = 7 ``offset_net.weight`` [2 k^2, C, k, k],
    ``offset_net.bias`` and ``deform_conv.weight`` [C, 1, k, k]; ``conv1.weight`` [C, C, 1, 1] and ``conv1.bias``.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(self, channels: int) -> None:
        super().__init__()
        require_channels("LKA", channels)
        self.conv0, self.conv_spatial = _DeformableConv(channels, 5), _DeformableConv(channels, 7, 3)
        self.conv1 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        gate: Tensor = self.conv1(self.conv_spatial(self.conv0(x)))
        return x * gate


class Attention(ProjectedUnit):
    """The unit between two 1x1 convolutions, plus x: VAN's ``Attention``.

    ``channels``: C of the map.

    Keys: ``proj_1.weight``, ``proj_2.weight`` [C, C, 1, 1], the ``.bias`` [C] of both, and those of the unit behind
    ``spatial_gating_unit.``.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    unit = LKA


class DeformableAttention(ProjectedUnit):
    """The deformable unit between two 1x1 convolutions, plus x: ``deformable_LKA_Attention``.

    ``channels`` and keys: as for ``Attention``, with those of the deformable unit.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    unit = DeformableLKA
