"""Squeeze-and-Excitation: PyTorch module.

Paper: "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507.
Source of the formula: hujie-frank/SENet, ``models/SE-ResNet-50.prototxt`` (two 1x1 convolutions with biases, C/16
between).

    s = mean over (H, W) of x        z = W2 * relu(W1 * s + b1) + b2        y = x * sigmoid(z)

- EfficientNet has SiLU in the place of ReLU; MobileNetV3 and PP-LCNet have a hard sigmoid, relu6(z + 3) / 6, in the
  place of the sigmoid. The keys are the same.
- Names and shapes are those of timm and torchvision (``fc1``, ``fc2``, 1x1 convolutions).
- Ports differ in the biases (many have none: pass ``bias=False``), in the layer type (Linear [R, C] instead of a
  convolution [R, C, 1, 1], the same function) and in the rounding of the hidden width (C // 16, or timm's multiple of
  8), which is why ``hidden`` is given here and never derived.
- The published init is Gaussian with a deviation of 0.01; PyTorch ports leave torch's default, and so does this.
- Identity: ``fc2.weight`` 0 and ``fc2.bias`` 20. Without biases there is none (all zero gives 0.5 * x).
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import Redrawable, require_widths

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}
_GATES: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "hard-sigmoid": nn.Hardsigmoid}


class SqueezeExcite(Redrawable):
    """Gate of every channel by a small network on the means of all channels.

    ``channels``: C of the map. ``hidden``: R, the width between the two convolutions. ``bias``: whether both have one.
    ``activation``: ``"relu"`` or ``"silu"``. ``gate``: ``"sigmoid"`` or ``"hard-sigmoid"``.
    Keys: ``fc1.weight`` [R, C, 1, 1], ``fc1.bias`` [R], ``fc2.weight`` [C, R, 1, 1], ``fc2.bias`` [C].
    ValueError where a width is below 1, or for another activation or gate.
    """

    def __init__(
        self, channels: int, hidden: int, bias: bool = True, activation: str = "relu", gate: str = "sigmoid"
    ) -> None:
        super().__init__()
        require_widths("SqueezeExcite", channels, hidden)
        if activation not in _ACTIVATIONS or gate not in _GATES:
            known = f"the activations {', '.join(_ACTIVATIONS)} and the gates {', '.join(_GATES)}"
            raise ValueError(f"SqueezeExcite has {known}, not {activation!r} and {gate!r}")
        self.fc1 = nn.Conv2d(channels, hidden, kernel_size=1, bias=bias)
        self.act = _ACTIVATIONS[activation]()
        self.fc2 = nn.Conv2d(hidden, channels, kernel_size=1, bias=bias)
        self.gate = _GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        squeezed = x.mean(dim=(2, 3), keepdim=True)
        gate: Tensor = self.gate(self.fc2(self.act(self.fc1(squeezed))))
        return x * gate
