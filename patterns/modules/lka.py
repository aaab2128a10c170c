"""LKA, large kernel attention: PyTorch module.

Paper: "Visual Attention Network", Computational Visual Media 2023, arXiv:2202.09741.
Source of the formula: Visual-Attention-Network/VAN-Classification, ``models/van.py``, ``LKA`` and ``Attention``.

    unit       y = x * conv1(conv_spatial(conv0(x)))
    wrapper    y = x + proj_2(unit(gelu(proj_1(x))))

- ``conv0`` is 5x5, ``conv_spatial`` 7x7 with dilation 3, both depthwise; ``conv1`` is 1x1 and dense. All have biases,
  and each pads with zeros to keep the size: together they see 23x23.
- There is no sigmoid: the gate has any size and sign.
- Identity: ``conv1.weight`` 0 and ``conv1.bias`` 1; in the wrapper ``proj_2`` 0.
"""

from __future__ import annotations

from torch import Tensor, nn

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


class Attention(ProjectedUnit):
    """The unit between two 1x1 convolutions, plus x: VAN's ``Attention``.

    ``channels``: C of the map.

    Keys: ``proj_1.weight``, ``proj_2.weight`` [C, C, 1, 1], the ``.bias`` [C] of both, and those of the unit behind
    ``spatial_gating_unit.``.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    unit = LKA
