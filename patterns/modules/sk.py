"""SK, selective kernel: PyTorch module.

Paper: "Selective Kernel Networks", CVPR 2019, arXiv:1903.06586.
Sources of the formula: implus/SKNet, ``models/sknet50.prototxt``, the paper's own (paper);
implus/PytorchInsight, ``classification/models/imagenet/resnet_sk.py``, by the paper's author (official);
xmu-xiaoma666/External-Attention-pytorch, ``SKAttention.py`` (external-attention); timm,
``layers/selective_kernel.py`` (timm).

    d_i = relu(BN(conv_i(x)))      s = mean over (H, W) of the sum of all d_i      z = choice(s), C values for each path
    y = sum over i of softmax over i of z_i * d_i

    paper                 3x3 and 3x3 of dilation 2, both in 32 groups; choice: 1x1 to R = max(32, C/16), BN, ReLU, 1x1
                          to C for each path; no biases, or, with ``bias``, in the last layers, as PyTorch ports have it
    official              3x3, and 3x3 in 32 groups; choice: 1x1 to R = C/16, BN, ReLU, 1x1 to 2C; no biases
    external-attention    1x1, 3x3, 5x5, 7x7, with biases; choice: Linear to R = max(32, C/16), a Linear back per path
    timm                  3x3 on the first half of the channels and 3x3 of dilation 2 on the second, or, without
                          ``split``, both on all; choice as official, R = C/16 rounded to a multiple of 8

- The block is a convolution and not a gate: it has no identity, and replaces a convolution in the published networks.
- External-Attention's choice has no activation between its layers. It has 84 C^2 weights in the convolutions.
- The eps of the BatchNorms is torch's 1e-5; Ultralytics sets 1e-3 in every model that it builds from YAML. It is not in
  a state_dict: pass it as ``bn_eps``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Redrawable, named, require_variant

VARIANTS = ("paper", "official", "external-attention", "timm")


class SelectiveKernel(Redrawable):
    """Convolve in several ways, and mix the results channel by channel.

    ``channels``: C of the map, in and out. ``hidden``: R. ``variant``: see above. ``groups``: of the second convolution
    (official) or of all (the others); 32, or 1 in external-attention and timm, where not given. ``bn_eps``: eps of all
    BatchNorms. ``bias``: of paper, ``split``: of timm, see above; ``kernels``: of external-attention, odd. ValueError
    for settings that do not fit together.

    Keys (paper): ``convs.{i}.0.weight`` [C, C/groups, 3, 3], ``convs.{i}.1`` (BN), ``fc.0.weight`` [R, C, 1, 1],
    ``fc.1`` (BN), ``fcs.{i}.weight`` [C, R, 1, 1]. official: ``conv2``, ``conv2g`` (.weight), ``bn2``, ``bn2g``,
    ``conv_fc1.weight`` [R, C, 1, 1], ``bn_fc1``, ``conv_fc2.weight`` [2C, R, 1, 1]. external-attention:
    ``convs.{i}.conv``, ``convs.{i}.bn``, ``fc``, ``fcs.{i}``. timm: ``paths.{i}.conv``, ``paths.{i}.bn``,
    ``attn.fc_reduce``, ``attn.bn``, ``attn.fc_select``.
    """

    described_by = ("variant",)

    def __init__(
        self,
        channels: int,
        hidden: int,
        variant: str = "paper",
        groups: int | None = None,
        bn_eps: float = 1e-5,
        bias: bool = False,
        split: bool = True,
        kernels: str = "1,3,5,7",
    ) -> None:
        super().__init__()
        require_variant("SelectiveKernel", variant, VARIANTS)
        groups = groups or (32 if variant in ("paper", "official") else 1)
        halves = 2 if variant == "timm" and split else 1
        if channels < 1 or hidden < 1 or channels % (halves * groups):
            raise ValueError(
                f"SelectiveKernel {variant} cannot have {channels} channels, {hidden} hidden, {groups} groups"
            )
        sizes = [int(size) for size in kernels.split(",")]
        if len(sizes) < 2 or any(size % 2 == 0 for size in sizes):
            raise ValueError(f"SelectiveKernel needs at least two odd kernels, got {kernels}")
        self.variant = variant
        self.split = split

        def norm(width: int) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(width, eps=bn_eps)

        if variant == "paper":
            self.convs = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(channels, channels, 3, padding=d, dilation=d, bias=False, groups=groups), norm(channels)
                )
                for d in (1, 2)
            )
            self.fc: nn.Module = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), norm(hidden))
            self.fcs = nn.ModuleList(nn.Conv2d(hidden, channels, 1, bias=bias) for _ in range(2))
        elif variant == "official":
            self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.bn2 = norm(channels)
            self.conv2g = nn.Conv2d(channels, channels, 3, padding=1, bias=False, groups=groups)
            self.bn2g = norm(channels)
            self.conv_fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
            self.bn_fc1 = norm(hidden)
            self.conv_fc2 = nn.Conv2d(hidden, 2 * channels, 1, bias=False)
        elif variant == "timm":
            self.paths = nn.ModuleList(
                named(
                    conv=nn.Conv2d(channels // halves, channels, 3, padding=d, dilation=d, bias=False, groups=groups),
                    bn=norm(channels),
                )
                for d in (1, 2)
            )
            self.attn = nn.Module()
            self.attn.fc_reduce = nn.Conv2d(channels, hidden, 1, bias=False)
            self.attn.bn = norm(hidden)
            self.attn.fc_select = nn.Conv2d(hidden, 2 * channels, 1, bias=False)
        else:
            self.convs = nn.ModuleList(
                named(conv=nn.Conv2d(channels, channels, k, padding=k // 2, groups=groups), bn=norm(channels))
                for k in sizes
            )
            self.fc = nn.Linear(channels, hidden)
            self.fcs = nn.ModuleList(nn.Linear(hidden, channels) for _ in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        maps = torch.stack([torch.relu(d) for d in self._convolved(x)], dim=1)
        squeezed = maps.sum(dim=1).mean(dim=(2, 3), keepdim=True)
        logits = self._choice(squeezed).reshape(x.shape[0], maps.shape[1], -1, 1, 1)
        return (maps * torch.softmax(logits, dim=1)).sum(dim=1)

    def _convolved(self, x: Tensor) -> list[Tensor]:
        """Every path's convolution and BatchNorm: [N, C, H, W] each."""
        if self.variant == "official":
            return [self.bn2(self.conv2(x)), self.bn2g(self.conv2g(x))]
        if self.variant == "timm":
            halves = x.chunk(2, dim=1) if self.split else (x, x)
            return [path(half) for path, half in zip(self.paths, halves, strict=True)]
        return [path(x) for path in self.convs]

    def _choice(self, squeezed: Tensor) -> Tensor:
        """[N, C, 1, 1] -> [N, paths * C, 1, 1]."""
        if self.variant == "paper":
            reduced = torch.relu(self.fc(squeezed))
            return torch.cat([fc(reduced) for fc in self.fcs], dim=1)
        if self.variant == "official":
            z: Tensor = self.conv_fc2(torch.relu(self.bn_fc1(self.conv_fc1(squeezed))))
            return z
        if self.variant == "timm":
            reduced = self.get_submodule("attn.bn")(self.get_submodule("attn.fc_reduce")(squeezed))
            z = self.get_submodule("attn.fc_select")(torch.relu(reduced))
            return z
        hidden = self.fc(squeezed.flatten(1))
        return torch.cat([fc(hidden) for fc in self.fcs], dim=1)[:, :, None, None]
