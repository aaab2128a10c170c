"""NAM, normalization-based attention: PyTorch module.

Paper: "NAM: Normalization-based Attention Module", arXiv:2111.12419.
Source of the formula: Christian-lyc/NAM, ``MODELS/attention.py`` (channel part). That code has no spatial part; the one
here is the form found in forks, which follows the paper's pixel normalisation.

    channel    u = BN_C(x)     w_c = |gamma_c| / sum_k |gamma_k|    y = x * sigmoid(w_c * u)
    spatial    u = BN_HW(y)    w_p = |gamma_p| / sum_q |gamma_q|    z = y * sigmoid(w_p * u)

BN_C is an ordinary BatchNorm; BN_HW normalises every position p = h*W + w over images and channels, as if positions
were channels. Both have a signed scale gamma and a shift beta; only the weights take absolute values.

- The paper writes the weights without absolute values, gamma_c / sum_k gamma_k: ``absolute=False``.
- x multiplies the gate; there is no additive shortcut.
- As in the published code no gradient flows through the weights w: gamma learns through the BatchNorm only.
- The eps of the BatchNorm is torch's 1e-5; Ultralytics sets 1e-3 in every model that it builds from YAML. It is not in
  a state_dict: pass it as ``bn_eps``.
- All gammas of a part 0: w is 0/0 and the output is NaN, here as in the published code.
- Identity: gamma = 1e-3 everywhere and beta = 20 * C (spatial: 20 * H*W): the gate's argument is then 20 plus a
  thousandth of the normalised input over C (or H*W), and the gate 1 in float32.
- Untrained (gamma 1, beta 0) the gate is close to 0.5 everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Redrawable, require_channels, require_size, require_variant

VARIANTS = ("channel", "channel+spatial", "spatial")


class NAM(Redrawable):
    """Gate of every value by its normalised self, weighted by how much its channel (and position) varies.

    ``channels``: C of the map. ``variant``: "channel" (as published), "channel+spatial" (as in forks) or "spatial"
    alone. ``size``: (H, W) of the map, needed and used by the spatial part only, which then takes maps of this size
    alone. ``bn_eps``: eps of both BatchNorms. ``absolute``: whether the weights are made of absolute values. ValueError
    for settings that do not fit together.

    Keys: ``Channel_Att.bn2.{weight,bias,running_mean,running_var}`` [C] and ``Channel_Att.bn2.num_batches_tracked``;
    those of the spatial part are the same under ``Spatial_Att.bn2`` with shape [H*W].
    """

    described_by = ("variant",)

    def __init__(
        self,
        channels: int,
        variant: str = "channel",
        size: tuple[int, int] | None = None,
        bn_eps: float = 1e-5,
        absolute: bool = True,
    ) -> None:
        super().__init__()
        require_variant("NAM", variant, VARIANTS)
        require_channels("NAM", channels)
        self.variant = variant
        if variant != "spatial":
            self.Channel_Att = _ChannelAttention(channels, bn_eps, absolute)
        if variant != "channel":
            if size is None:
                raise ValueError(f"NAM {variant} needs the size of the map")
            self.Spatial_Att = _SpatialAttention((size[0], size[1]), bn_eps, absolute)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of another size than the spatial part was made for."""
        for part in self.children():
            x = part(x)
        return x


def _weights(norm: nn.BatchNorm2d, absolute: bool) -> Tensor:
    """|gamma| / sum |gamma| as [1, n, 1, 1], cut off from the gradient as in the published code."""
    scale = norm.weight.detach()
    scale = scale.abs() if absolute else scale
    return (scale / scale.sum()).reshape(1, -1, 1, 1)


class _ChannelAttention(nn.Module):
    """The channel part. [N, C, H, W] -> [N, C, H, W]."""

    def __init__(self, channels: int, bn_eps: float, absolute: bool) -> None:
        super().__init__()
        self.absolute = absolute
        self.bn2 = nn.BatchNorm2d(channels, eps=bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(_weights(self.bn2, self.absolute) * self.bn2(x))


class _SpatialAttention(nn.Module):
    """The spatial part. [N, C, H, W] -> [N, C, H, W]."""

    def __init__(self, size: tuple[int, int], bn_eps: float, absolute: bool) -> None:
        super().__init__()
        self.absolute = absolute
        self.map_size = size
        self.bn2 = nn.BatchNorm2d(size[0] * size[1], eps=bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, self.map_size, "NAM")
        positions = x.flatten(2).transpose(1, 2).unsqueeze(2)  # [N, HW, 1, C]
        gate = torch.sigmoid(_weights(self.bn2, self.absolute) * self.bn2(positions))
        return x * gate.squeeze(2).transpose(1, 2).reshape(x.shape)
