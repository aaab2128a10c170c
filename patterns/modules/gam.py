"""GAM, the Global Attention Mechanism: PyTorch module.

Paper: "Global Attention Mechanism: Retain Information to Enhance Channel-Spatial Interactions", arXiv:2112.05561.
Source of the formula: no code by the authors is known. The listing that blogs, yoloair and forks share is followed.

    A = W2 relu(W1 v + b1) + b2 for the channels v of every position        z = x * A, or x * sigmoid(A)
    S = BN(conv7x7(relu(BN(conv7x7(z)))))        y = z * sigmoid(S)

    listing         z = x * A, as in the listing and yoloair
    cv-attention    z = x * sigmoid(A), as in cv-attention and the paper's figure
    yolo-grouped    z = x * A, both 7x7 convolutions in ``reduction`` groups, the channels of sigmoid(S) shuffled in
                    four groups: GAM_Attention of YOLO forks; without ``group``, the convolutions are not grouped

- Heavy: 25.7 million parameters at 1024 channels where the convolutions are not grouped.
- Identity: ``channel_attention.2`` with weight 0 and bias 1 (20 where a sigmoid follows), ``spatial_attention.4`` with
  weight 0 and bias 20.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..forms import GAM_SHUFFLE
from .layers import Described, require_variant

VARIANTS = ("listing", "cv-attention", "yolo-grouped")


class GlobalAttention(Described):
    """Gate by a network over the channels of each position, then by one over its surroundings.

    ``channels``: C. ``variant``: see above. ``reduction``: r, with C // r hidden channels. ``bn_eps``: eps of both
    BatchNorms. ``group``: of yolo-grouped, see above. ValueError for settings that do not fit together.

    Keys, with h = C // r and g groups (1 unless grouped): ``channel_attention.0.{weight [h,C],bias}``,
    ``channel_attention.2.{weight [C,h],bias}``, ``spatial_attention.0.{weight [h,C/g,7,7],bias}``,
    ``spatial_attention.1.*`` [h], ``spatial_attention.3.{weight [C,h/g,7,7],bias}``, ``spatial_attention.4.*`` [C].
    """

    # the gate of the channels has no sigmoid: where its sums cancel, x multiplies their rounding errors
    sharp = True
    described_by = ("variant",)

    def __init__(
        self,
        channels: int,
        variant: str = "listing",
        reduction: int = 4,
        bn_eps: float = 1e-5,
        group: bool = True,
    ) -> None:
        super().__init__()
        require_variant("GlobalAttention", variant, VARIANTS)
        if reduction < 1 or channels < reduction:
            raise ValueError(f"GlobalAttention needs a reduction between 1 and {channels}, got {reduction}")
        self.variant = variant
        hidden = channels // reduction
        groups = reduction if variant == "yolo-grouped" and group else 1
        if groups > 1 and (channels % groups or hidden % groups):
            raise ValueError(f"GlobalAttention cannot form {groups} groups of {channels} and {hidden} channels")
        if variant == "yolo-grouped" and channels % GAM_SHUFFLE:
            raise ValueError(f"GlobalAttention cannot shuffle {channels} channels in {GAM_SHUFFLE} groups")
        self.channel_attention = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial_attention = nn.Sequential(
            nn.Conv2d(channels, hidden, 7, padding=3, groups=groups),
            nn.BatchNorm2d(hidden, eps=bn_eps),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 7, padding=3, groups=groups),
            nn.BatchNorm2d(channels, eps=bn_eps),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        gate = self.channel_attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        z = x * (torch.sigmoid(gate) if self.variant == "cv-attention" else gate)
        spatial = torch.sigmoid(self.spatial_attention(z))
        if self.variant == "yolo-grouped":
            batch, channels, height, width = x.shape
            parts = spatial.reshape(batch, GAM_SHUFFLE, channels // GAM_SHUFFLE, height, width)
            spatial = parts.transpose(1, 2).reshape(x.shape)
        return z * spatial
