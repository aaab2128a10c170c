"""LCT, linear context transform: PyTorch module.

Paper: "Linear Context Transform Block", AAAI 2020, arXiv:1909.03834. The authors' code is not public; the formula is
the paper's, and names and first values are those of the re-implementations that people use.

    s = mean over (H, W) of x, in G groups of C/G channels      n = (s - mean_g(s)) / sqrt(var_g(s) + eps)
    y = x * sigmoid(w * n + b)

- The variance is the population's. Re-implementations compute it as mean(s^2) - mean(s)^2, which can come out below 0;
  here it is the mean of squares about the mean.
- One channel to a group: n is 0 and the gate sigmoid(b), whatever x is.
- w starts at 1 and b at 0 as in the re-implementations. Identity: w 0 and b 20.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Described


class LinearContextTransform(Described):
    """Gate of every channel by where its mean stands within its group.

    ``channels``: C of the map. ``groups``: G, divides C. ``eps``: of the normalisation. Keys: ``w`` [C], ``b`` [C].
    ValueError where G does not divide C.
    """

    described_by = ("groups", "eps")

    def __init__(self, channels: int, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        if channels < 1 or groups < 1 or channels % groups:
            raise ValueError(
                f"LinearContextTransform needs groups that divide the channels, got {channels} in {groups}"
            )
        self.groups, self.eps = groups, eps
        self.w = nn.Parameter(torch.ones(channels))
        self.b = nn.Parameter(torch.zeros(channels))

    def reset_parameters(self) -> None:
        """Set w to 1 and b to 0."""
        nn.init.ones_(self.w)
        nn.init.zeros_(self.b)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        groups = x.mean(dim=(2, 3)).reshape(x.shape[0], self.groups, -1)
        normal = functional.layer_norm(groups, groups.shape[2:], eps=self.eps).flatten(1)
        return x * torch.sigmoid(self.w * normal + self.b)[:, :, None, None]
