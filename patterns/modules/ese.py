"""eSE, effective squeeze-and-excitation: PyTorch module.

Paper: "CenterMask: Real-Time Anchor-Free Instance Segmentation", CVPR 2020, arXiv:1911.06667.
Sources of the formula: youngwanLEE/CenterMask (eSEModule of VoVNet) and timm, ``layers/squeeze_excite.py``.

    y = x * relu6(fc(mean over (H, W) of x) + 3) / 6

- There is one layer and it keeps all C channels; the paper's point against SE is that a bottleneck loses information.
- The gate is a hard sigmoid of slope 1/6; ONNX's HardSigmoid has 0.2 where the slope is not given.
- Identity: ``fc.weight`` 0 and ``fc.bias`` 3 or more.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .layers import Redrawable, require_channels


class EffectiveSqueezeExcite(Redrawable):
    """Gate of every channel by one linear layer on the means of all channels.

    ``channels``: C of the map. Keys: ``fc.weight`` [C, C, 1, 1], ``fc.bias`` [C]. ValueError where C is below 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        require_channels("EffectiveSqueezeExcite", channels)
        self.fc = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return x * functional.hardsigmoid(self.fc(x.mean(dim=(2, 3), keepdim=True)))
