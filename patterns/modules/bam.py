"""BAM, bottleneck attention module: PyTorch twin.

Paper: "BAM: Bottleneck Attention Module", BMVC 2018, arXiv:1807.06514.
Sources of the formula: Jongchan/attention-module, ``MODELS/bam.py`` (official); the paper (paper);
xmu-xiaoma666/External-Attention-pytorch, ``BAM.py``, and the catalogue cv-attention (cv-attention).

    channel(s)   linear layers C -> R with BatchNorm and ReLU, then R -> C         [N, C, 1, 1], s = mean of x over H, W
    spatial(x)   1x1 C -> R, then dilated 3x3 R -> R, each with BatchNorm and ReLU, then 1x1 R -> 1        [N, 1, H, W]
    y = x * (1 + sigmoid(channel(s) * spatial(x)))          paper, cv-attention: channel(s) + spatial(x)

    official, paper    one hidden linear layer; two 3x3 convolutions of dilation 4
    cv-attention       three of each; dilation 2

- The published file does not run (it reads an undefined name); copies leave that line out. Its pooling window is H x H,
  which takes square maps only; the mean here is over the whole map.
- External-Attention's first versions pad their 3x3 convolutions by 1 at dilation 2, which fails on maps other than 7x7.
- bn_eps is that of the BatchNorm2d's. Ultralytics sets it to 1e-3 in models built from YAML and leaves BatchNorm1d,
  which the channel part has, at 1e-5.
- Identity: the argument of the sigmoid at -40: last layers 0, with biases -40 and 1 (official), or both -40.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

VARIANTS = ("official", "paper", "cv-attention")


class BAM(nn.Module):
    """Scale every value by 1 to 2, by what its channel and its surroundings say.

    ``channels``: C of the map. ``hidden``: R. ``variant``: see above. ``bn_eps``: eps of the spatial part's BatchNorms.
    ValueError for settings that do not fit together.

    Keys (official): ``channel_att.gate_c.gate_c_{fc_0,bn_1,fc_final}.*``,
    ``spatial_att.gate_s.gate_s_{conv_reduce0,bn_reduce0,conv_di_{0,1},bn_di_{0,1},conv_final}.*``. cv-attention:
    ``ca.ca.{fc,bn}{0,1,2}.*``, ``ca.ca.last_fc.*``, ``sa.sa.{conv,bn}_reduce1.*``, ``sa.sa.{conv,bn}_{0,1,2}.*``,
    ``sa.sa.last_conv.*``.
    """

    def __init__(self, channels: int, hidden: int, variant: str = "official", bn_eps: float = 1e-5) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"BAM has the variants {', '.join(VARIANTS)}, not {variant!r}")
        if channels < 1 or hidden < 1:
            raise ValueError(f"BAM needs channels and hidden of at least 1, got {channels} and {hidden}")
        self.variant = variant
        port = variant == "cv-attention"
        count, dilation = (3, 2) if port else (2, 4)
        channel: dict[str, nn.Module] = {}
        for i in range(3 if port else 1):
            fc, bn, act = (f"fc{i}", f"bn{i}", f"relu{i}") if port else ("gate_c_fc_0", "gate_c_bn_1", "gate_c_relu_1")
            channel |= {fc: nn.Linear(hidden if i else channels, hidden), bn: nn.BatchNorm1d(hidden), act: nn.ReLU()}
        channel["last_fc" if port else "gate_c_fc_final"] = nn.Linear(hidden, channels)

        def stage(conv: nn.Conv2d, form: str, name: str) -> dict[str, nn.Module]:
            parts = {"conv": conv, "bn": nn.BatchNorm2d(hidden, eps=bn_eps), "relu": nn.ReLU()}
            return {form.format(part, name): layer for part, layer in parts.items()}

        form = "{}_{}" if port else "gate_s_{}_{}"
        spatial = stage(nn.Conv2d(channels, hidden, 1), form, "reduce1" if port else "reduce0")
        for i in range(count):
            conv = nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation)
            spatial |= stage(conv, form, f"{i}" if port else f"di_{i}")
        spatial["last_conv" if port else "gate_s_conv_final"] = nn.Conv2d(hidden, 1, 1)
        names = (("ca", "ca"), ("sa", "sa")) if port else (("channel_att", "gate_c"), ("spatial_att", "gate_s"))
        self._names = tuple(".".join(name) for name in names)
        for (outer, inner), layers in zip(names, (channel, spatial), strict=True):
            self.add_module(outer, nn.Module())
            self.get_submodule(outer).add_module(inner, nn.Sequential(OrderedDict(layers)))

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as torch draws those of its layers."""
        for layer in self.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        channel, spatial = (self.get_submodule(name) for name in self._names)
        by_channel: Tensor = channel(x.mean(dim=(2, 3)))[:, :, None, None]
        by_position: Tensor = spatial(x)
        both = by_channel * by_position if self.variant == "official" else by_channel + by_position
        return x * (1 + torch.sigmoid(both))

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return f"variant={self.variant!r}"
