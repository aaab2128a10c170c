"""SRM, style-based recalibration: PyTorch module.

Paper: "SRM: A Style-based Recalibration Module for Convolutional Neural Networks", ICCV 2019, arXiv:1903.10829.
Source of the formula: hyunjaelee410/style-based-recalibration-module, ``models/recalibration_modules.py``.

    z_c = cfc[c, 0] * mean_c + cfc[c, 1] * std_c, both over (H, W)        y = x * sigmoid(BN(z))

- std has the divisor M - 1, with M = H*W, and no epsilon: a map of one position gives NaN in the published code and is
  refused here.
- The deviation is computed from the mean of squares about the mean, times M / (M - 1); a sum of squares would leave
  float16 on ordinary maps.
- The eps of the BatchNorm is torch's 1e-5; Ultralytics sets 1e-3 in every model that it builds from YAML. It is not in
  a state_dict: pass it as ``bn_eps``.
- cfc starts at 0, so that the untrained gate is 0.5. Identity: cfc 0 and ``bn.bias`` 20.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import require_channels, require_positions


class StyleRecalibration(nn.Module):
    """Gate of every channel by its own mean and deviation.

    ``channels``: C of the map. ``bn_eps``: eps of the BatchNorm. Keys: ``cfc`` [C, 2],
    ``bn.{weight,bias,running_mean,running_var}`` [C] and ``bn.num_batches_tracked``. ValueError where C is below 1.
    """

    def __init__(self, channels: int, bn_eps: float = 1e-5) -> None:
        super().__init__()
        require_channels("StyleRecalibration", channels)
        self.cfc = nn.Parameter(torch.zeros(channels, 2))
        self.bn = nn.BatchNorm2d(channels, eps=bn_eps)

    def reset_parameters(self) -> None:
        """Set cfc to 0 and the BatchNorm as torch does, as published."""
        nn.init.zeros_(self.cfc)
        self.bn.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of one position, which has no deviation."""
        positions = x.shape[2] * x.shape[3]
        require_positions(x, "SRM", "the deviation")
        mean = x.mean(dim=(2, 3), keepdim=True)
        variance = (x - mean).square().mean(dim=(2, 3), keepdim=True) * (positions / (positions - 1))
        of_mean, of_deviation = self.cfc.reshape(1, -1, 2, 1, 1).unbind(2)
        z = self.bn(of_mean * mean + of_deviation * variance.sqrt())
        return x * torch.sigmoid(z)
