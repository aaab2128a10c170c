"""SGE, spatial group-wise enhance: PyTorch module.

Paper: "Spatial Group-wise Enhance: Improving Semantic Feature Learning in CNNs", arXiv:1905.09646.
Source of the formula: implus/PytorchInsight, ``classification/models/imagenet/resnet_sge.py``.

Within each of G groups of C/G channels, over the positions p of (H, W):

    t_p = sum over the group of x_p * mean(x)       n_p = (t_p - mean(t)) / (std(t) + 1e-5)
    y_p = x_p * sigmoid(weight_g * n_p + bias_g)

- std has the divisor M - 1, with M = H*W, and epsilon stands outside the root: a map of one position gives NaN in the
  published code and is refused here.
- A constant map has n = 0; there the published code divides rounding errors by epsilon.
- weight starts at 0 and bias at 1 (gate 0.731); ports start with bias 0 (gate 0.5) and mostly have 8 groups instead of
  64. Identity: weight 0 and bias 20.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Described, require_positions


class SpatialGroupEnhance(Described):
    """Gate of every position in every group of channels.

    ``channels``: C of the map. ``groups``: G, divides C. Keys: ``weight`` and ``bias`` [1, G, 1, 1]. ValueError where G
    does not divide C.
    """

    described_by = ("groups",)

    def __init__(self, channels: int, groups: int = 64) -> None:
        super().__init__()
        if channels < 1 or groups < 1 or channels % groups:
            raise ValueError(f"SpatialGroupEnhance needs groups that divide the channels, got {channels} in {groups}")
        self.groups = groups
        self.weight = nn.Parameter(torch.zeros(1, groups, 1, 1))
        self.bias = nn.Parameter(torch.ones(1, groups, 1, 1))

    def reset_parameters(self) -> None:
        """Set weight to 0 and bias to 1, as published."""
        nn.init.zeros_(self.weight)
        nn.init.ones_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of one position, which has no deviation."""
        require_positions(x, "SGE", "the deviation")
        grouped = x.reshape(x.shape[0], self.groups, -1, x.shape[2] * x.shape[3])  # [N, G, C/G, M]
        likeness = (grouped * grouped.mean(dim=3, keepdim=True)).sum(dim=2, keepdim=True)
        centred = likeness - likeness.mean(dim=3, keepdim=True)
        centred = centred - centred.mean(dim=3, keepdim=True)
        deviation = centred.square().sum(dim=3, keepdim=True) / (centred.shape[3] - 1)
        normal = centred / (deviation.sqrt() + 1e-5)
        gate = torch.sigmoid(self.weight * normal + self.bias)
        return (grouped * gate).reshape(x.shape)
