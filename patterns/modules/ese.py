"""eSE, effective squeeze-and-excitation: PyTorch module.

Paper: "CenterMask: Real-Time Anchor-Free Instance Segmentation", CVPR 2020, arXiv:1911.06667.
Sources of the formula: youngwanLEE/CenterMask (eSEModule of VoVNet) and timm, ``layers/squeeze_excite.py``.

    y = x * relu6(fc(mean over (H, W) of x) + 3) / 6

- There is one layer and it keeps all C channels; the paper's point against SE is that a bottleneck loses information.
- The gate is a hard sigmoid of slope 1/6; ONNX's HardSigmoid has 0.2 where the slope is not given.
- Others have a sigmoid under the same keys: Ultralytics' ChannelAttention, and the EseModule of HGNetV2 (``conv``).
- Identity: ``fc.weight`` 0 and ``fc.bias`` 3 or more; 20 for a sigmoid.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import Redrawable, require_channels

_GATES: dict[str, type[nn.Module]] = {"hard-sigmoid": nn.Hardsigmoid, "sigmoid": nn.Sigmoid}


class EffectiveSqueezeExcite(Redrawable):
    """Gate of every channel by one linear layer on the means of all channels.

    ``channels``: C of the map. ``gate``: ``"hard-sigmoid"`` or ``"sigmoid"``. Keys: ``fc.weight`` [C, C, 1, 1],
    ``fc.bias`` [C]. ValueError where C is below 1, or for another gate.
    """

    def __init__(self, channels: int, gate: str = "hard-sigmoid") -> None:
        super().__init__()
        require_channels("EffectiveSqueezeExcite", channels)
        if gate not in _GATES:
            raise ValueError(f"EffectiveSqueezeExcite has the gates {', '.join(_GATES)}, not {gate!r}")
        self.fc = nn.Conv2d(channels, channels, kernel_size=1)
        self.gate = _GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        gate: Tensor = self.gate(self.fc(x.mean(dim=(2, 3), keepdim=True)))
        return x * gate
