"""LSKA, large separable kernel attention: PyTorch module.

Paper: "Large Separable Kernel Attention: Rethinking the Large Kernel Attention Design in CNN", arXiv:2309.01439.
Source of the formula: StevenLauHKHK/Large-Separable-Kernel-Attention, ``models/van.py``, ``LSKA`` and ``Attention``.

    unit       y = x * conv1(conv_spatial_v(conv_spatial_h(conv0v(conv0h(x)))))
    wrapper    y = x + proj_2(unit(gelu(proj_1(x))))

- All but ``conv1`` (1x1, dense) are depthwise, all have biases, and each pads with zeros to keep the size. The
  horizontal convolutions (1 x k) come before the vertical ones (k x 1); those of ``conv_spatial`` are dilated.
- There is no sigmoid: the gate has any size and sign.
- Two separable convolutions are not one k x k convolution: the second pads with 0 and not with the bias of the first.
- Identity: ``conv1.weight`` 0 and ``conv1.bias`` 1; in the wrapper ``proj_2`` 0.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..forms import LSKA_KERNELS
from .layers import ProjectedUnit, depthwise, require_channels


class LSKA(nn.Module):
    """Gate of every value by a large neighbourhood of its channel.

    ``channels``: C of the map. ``k_size``: one of 7, 11, 23, 35, 41, 53. ValueError for another one.

    Keys: ``conv0h.weight`` [C, 1, 1, k], ``conv0v.weight`` [C, 1, k, 1], ``conv_spatial_h.weight``,
    ``conv_spatial_v.weight`` alike, ``conv1.weight`` [C, C, 1, 1], and ``.bias`` [C] of each.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(self, channels: int, k_size: int = 7) -> None:
        super().__init__()
        if k_size not in LSKA_KERNELS:
            raise ValueError(f"LSKA has the kernel sizes {', '.join(map(str, LSKA_KERNELS))}, not {k_size}")
        require_channels("LSKA", channels)
        near, far, dilation = LSKA_KERNELS[k_size]
        self.conv0h = depthwise(channels, (1, near))
        self.conv0v = depthwise(channels, (near, 1))
        self.conv_spatial_h = depthwise(channels, (1, far), dilation=dilation)
        self.conv_spatial_v = depthwise(channels, (far, 1), dilation=dilation)
        self.conv1 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        near = self.conv0v(self.conv0h(x))
        far = self.conv_spatial_v(self.conv_spatial_h(near))
        gate: Tensor = self.conv1(far)
        return x * gate


class Attention(ProjectedUnit):
    """The unit between two 1x1 convolutions, plus x: the code's ``Attention``.

    ``channels``: C of the map. ``k_size``: as for the unit.

    Keys: ``proj_1.weight``, ``proj_2.weight`` [C, C, 1, 1], the ``.bias`` [C] of both, and those of the unit behind
    ``spatial_gating_unit.``.
    """

    sharp = True  # see graphsurgery.verification.conditioning
    unit = LSKA

    def __init__(self, channels: int, k_size: int = 7) -> None:
        super().__init__(channels, k_size=k_size)
