"""SimAM, the parameter-free attention: PyTorch module.

Paper: "SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks", ICML 2021, PMLR 139.
Source of the formula: ZjjConan/SimAM, ``networks/attentions/simam_module.py``.

For every image and channel, over its M = H*W positions:

    d = (x - mean(x))^2        v = sum(d) / (M - 1)        E = d / (4 * (v + e_lambda)) + 0.5        y = x * sigmoid(E)

- The variance v is the one of the published code (divisor M - 1). The paper's text divides by M: ``divisor="HW"``.
- v is computed here as mean(d) * M/(M - 1). The published code sums d, which passes float16's largest value on an
  ordinary 80x80 map; the mean does not.
- Ports differ in their arguments. In yoloair the second argument, ``e_lambda``, receives the number of output channels,
  which makes the gate a constant of about 0.62; pass ``e_lambda`` by name.
- There is no setting that makes the block an identity: the gate lies between sigmoid(0.5) = 0.62 and 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .layers import Described, require_positions


class SimAM(Described):
    """Gate of every value by how far it stands out of its channel. No parameters, no buffers.

    ``e_lambda``: regulariser of the variance, in squared units of x, more than 0. The published default is 1e-4; the
    ImageNet commands of the published code use 0.1. ``divisor``: "HW-1" or "HW". ValueError where they are not.
    """

    described_by = ("e_lambda", "divisor")

    def __init__(self, e_lambda: float = 1e-4, divisor: str = "HW-1") -> None:
        super().__init__()
        if not e_lambda > 0:
            raise ValueError(f"SimAM needs an e_lambda above 0, got {e_lambda}")
        if divisor not in ("HW-1", "HW"):
            raise ValueError(f"SimAM has the divisors HW-1 and HW, not {divisor!r}")
        self.e_lambda = e_lambda
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of one position, which has no variance by HW - 1."""
        positions = x.shape[2] * x.shape[3]
        deviation = (x - x.mean(dim=(2, 3), keepdim=True)).square()
        variance = deviation.mean(dim=(2, 3), keepdim=True)
        if self.divisor == "HW-1":
            require_positions(x, "SimAM", "the variance")
            variance = variance * (positions / (positions - 1))
        energy = deviation / (4 * (variance + self.e_lambda)) + 0.5
        return x * torch.sigmoid(energy)
