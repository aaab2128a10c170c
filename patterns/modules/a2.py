"""Double attention of A2-Nets: PyTorch module.

Paper: "A2-Nets: Double Attention Networks", NeurIPS 2018, arXiv:1810.11579, equations 4 to 6.
There is no official PyTorch code. The keys are those of xmu-xiaoma666/External-Attention-pytorch, whose own
computation is another one, see below.

    A = convA(x)    B = softmax over the positions of convB(x)    V = softmax over the c_n maps of convV(x)
    Z = (A B^T) V                                                 y = conv_reconstruct(Z)

- The ports call softmax without a dimension, which on [N, c, HW] is the batch axis: with one image all attention is 1
  and the output constant over the map. That is not the paper's block, and it is not reproduced here.
- Without reconstruction (``reconstruct=False`` in the ports) y is Z, of c_m channels: a block where c_m is C.
- There is no shortcut inside, and no setting that makes the block an identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DoubleAttention(nn.Module):
    """``channels``: C of the map. ``c_m``: channels that are gathered; ``c_n``: number of attention maps.
    ``reconstruct``: whether there is a last convolution; without it c_m has to be C.

    Keys: ``convA.weight`` [c_m, C, 1, 1], ``convB.weight`` and ``convV.weight`` [c_n, C, 1, 1],
    ``conv_reconstruct.weight`` [C, c_m, 1, 1], and the ``.bias`` of each. ValueError for numbers below 1, or a c_m that
    does not do.
    """

    sharp = True  # see graphsurgery.verification.conditioning

    def __init__(self, channels: int, c_m: int = 128, c_n: int = 128, reconstruct: bool = True) -> None:
        super().__init__()
        if min(channels, c_m, c_n) < 1:
            raise ValueError(f"DoubleAttention needs numbers of at least 1, got {channels}, {c_m} and {c_n}")
        if not reconstruct and c_m != channels:
            raise ValueError(f"DoubleAttention without reconstruction needs c_m = {channels}, got {c_m}")
        self.convA = nn.Conv2d(channels, c_m, 1)
        self.convB = nn.Conv2d(channels, c_n, 1)
        self.convV = nn.Conv2d(channels, c_n, 1)
        self.conv_reconstruct = nn.Conv2d(c_m, channels, 1) if reconstruct else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        features = self.convA(x).flatten(2)
        gather = torch.softmax(self.convB(x).flatten(2), dim=2)
        distribute = torch.softmax(self.convV(x).flatten(2), dim=1)
        z = features @ gather.transpose(1, 2) @ distribute
        y: Tensor = self.conv_reconstruct(z.reshape(x.shape[0], -1, x.shape[2], x.shape[3]))
        return y
