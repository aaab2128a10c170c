"""CAA, Context Anchor Attention: PyTorch module.

Paper: "Poly Kernel Inception Network for Remote Sensing Detection", CVPR 2024, arXiv:2403.06258.
Source of the formula: PKINet, ``mmrotate/models/backbones/pkinet.py``, ``CAA``.

    y = x * sigmoid(conv2(v_conv(h_conv(conv1(mean over 7x7 windows)))))

``conv1`` and ``conv2`` are 1x1; ``h_conv`` (1xk) and ``v_conv`` (kx1) are depthwise with biases. The windows of the
mean count the zeros outside the map: at a corner of a map of ones the mean is 16/49.

    pkinet     1x1 convolutions with biases and nothing after them: how PKINet builds the class
    bn-silu    1x1 convolutions without biases, BatchNorm (eps 1e-3) and SiLU: the class's defaults, and the YOLO ports

- The published class returns the gate; its surroundings multiply. The ports return gate * x, and so does this.
- With SiLU before it, the sigmoid is at least 0.431.
- Identity: ``conv2`` with weight 0 and bias 20, or its BatchNorm so.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import depthwise, named, require_variant

VARIANTS = ("pkinet", "bn-silu")


class ContextAnchorAttention(nn.Module):
    """A gate from a wide context.

    ``channels``: C. ``variant``: see above. ``h_kernel_size``, ``v_kernel_size``: width and height of the strips, odd.
    ``bn_eps``: eps of the BatchNorms of bn-silu. ValueError for settings that do not fit together.

    Keys: ``conv1.conv.weight``, ``conv2.conv.weight`` [C,C,1,1], ``h_conv.conv.{weight [C,1,1,k],bias}``,
    ``v_conv.conv.{weight [C,1,k,1],bias}``; ``conv1.conv.bias`` and ``conv2.conv.bias``, or ``conv1.bn.*`` and
    ``conv2.bn.*``.
    """

    def __init__(
        self,
        channels: int,
        variant: str = "pkinet",
        h_kernel_size: int = 11,
        v_kernel_size: int = 11,
        bn_eps: float = 1e-3,
    ) -> None:
        super().__init__()
        require_variant("ContextAnchorAttention", variant, VARIANTS)
        if h_kernel_size % 2 == 0 or v_kernel_size % 2 == 0:
            raise ValueError(f"ContextAnchorAttention has odd kernels, not {h_kernel_size} and {v_kernel_size}")
        norm = bn_eps if variant == "bn-silu" else None
        self.pool = nn.AvgPool2d(7, stride=1, padding=3)
        self.conv1 = _layer(nn.Conv2d(channels, channels, 1, bias=norm is None), norm)
        self.h_conv = _layer(depthwise(channels, (1, h_kernel_size)), None)
        self.v_conv = _layer(depthwise(channels, (v_kernel_size, 1)), None)
        self.conv2 = _layer(nn.Conv2d(channels, channels, 1, bias=norm is None), norm)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return x * torch.sigmoid(self.conv2(self.v_conv(self.h_conv(self.conv1(self.pool(x))))))


def _layer(conv: nn.Conv2d, bn_eps: float | None) -> nn.Sequential:
    """A convolution named ``conv``; with an eps, a BatchNorm ``bn`` and a SiLU after it."""
    if bn_eps is None:
        return named(conv=conv)
    return named(conv=conv, bn=nn.BatchNorm2d(conv.out_channels, eps=bn_eps, momentum=0.03), act=nn.SiLU())
