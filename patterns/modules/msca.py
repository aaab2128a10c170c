"""MSCA, multi-scale convolutional attention of SegNeXt: the PyTorch modules of the unit and of its wrapper.

Paper: "SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation", NeurIPS 2022, arXiv:2209.08575.
Source of the formula: Visual-Attention-Network/SegNeXt, ``mmseg/models/backbones/mscan.py``.

    unit       a = dw5x5(x)    m = conv3(a + dw7x1(dw1x7(a)) + dw11x1(dw1x11(a)) + dw21x1(dw1x21(a)))    y = x * m
    wrapper    y = x + proj_2(unit(gelu(proj_1(x))))

- The gate m has no sigmoid: it is unbounded, and untrained of either sign.
- All convolutions have biases, and pad with zeros. gelu is the exact one.
- "MSCAAttention" is the unit in most YOLO forks and the wrapper in others: the wrapper's weights have ``proj_1``.
- Identity: unit: ``conv3`` with weight 0 and bias 1; wrapper: ``proj_2`` with weight 0 and bias 0.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import ProjectedUnit, depthwise


class AttentionModule(nn.Module):
    """The gating unit.

    ``channels``: C. Keys, each with a bias [C]: ``conv0.weight`` [C,1,5,5], ``conv{i}_1.weight`` [C,1,1,k] and
    ``conv{i}_2.weight`` [C,1,k,1] for i = 0, 1, 2 and k = 7, 11, 21, ``conv3.weight`` [C,C,1,1].
    """

    # the gate has no sigmoid: where its sums cancel, x multiplies their rounding errors
    sharp = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = depthwise(channels, (5, 5))
        self.conv0_1, self.conv0_2 = depthwise(channels, (1, 7)), depthwise(channels, (7, 1))
        self.conv1_1, self.conv1_2 = depthwise(channels, (1, 11)), depthwise(channels, (11, 1))
        self.conv2_1, self.conv2_2 = depthwise(channels, (1, 21)), depthwise(channels, (21, 1))
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        base = self.conv0(x)
        context = base + self.conv0_2(self.conv0_1(base))
        context = context + self.conv1_2(self.conv1_1(base)) + self.conv2_2(self.conv2_1(base))
        gate: Tensor = self.conv3(context)
        return x * gate


class SpatialAttention(ProjectedUnit):
    """The unit between two 1x1 convolutions, plus its input.

    ``channels``: C. Keys: ``proj_1.{weight [C,C,1,1],bias}``, ``proj_2.*`` likewise, and those of the unit under
    ``spatial_gating_unit``.
    """

    unit = AttentionModule
