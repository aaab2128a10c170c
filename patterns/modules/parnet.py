"""ParNet attention, the block of ParNet with its skip-squeeze-excitation: PyTorch module.

Paper: "Non-deep Networks", NeurIPS 2022, arXiv:2110.07641.
Source of the formula: xmu-xiaoma666/External-Attention-pytorch, ``model/attention/ParNetAttention.py``.

    y = silu(BN(conv1x1(x)) + BN(conv3x3(x)) + x * sigmoid(conv(mean over H, W of x)))

- All three convolutions are dense and have biases.
- The gate has one layer and no reduction, unlike that of SE.
- The paper's own code has a BatchNorm in front of the gate; the module that detectors have got has none.
- There is no identity: the SiLU comes last.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import Redrawable, require_channels


class ParNetAttention(Redrawable):
    """Two convolutions and a gated copy of the map, added up.

    ``channels``: C of the map. ``bn_eps``: eps of both BatchNorms. ValueError without channels.

    Keys: ``sse.1.weight`` [C, C, 1, 1], ``conv1x1.0.weight`` [C, C, 1, 1], ``conv3x3.0.weight`` [C, C, 3, 3], the
    ``.bias`` [C] of each, and ``conv1x1.1``, ``conv3x3.1`` ``.{weight,bias,running_mean,running_var}`` [C].
    """

    described_by = ("channels",)

    def __init__(self, channels: int, bn_eps: float = 1e-5) -> None:
        super().__init__()
        require_channels("ParNetAttention", channels)
        self.channels = channels
        self.sse = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())
        self.conv1x1 = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels, eps=bn_eps))
        self.conv3x3 = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels, eps=bn_eps))
        self.silu = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = self.silu(self.conv1x1(x) + self.conv3x3(x) + self.sse(x) * x)
        return y
