"""BAM, bottleneck attention module: PyTorch module.

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

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..forms import BAM_FORMS
from .layers import Redrawable, place, require_variant, require_widths

VARIANTS = tuple(BAM_FORMS)


class BAM(Redrawable):
    """Scale every value by 1 to 2, by what its channel and its surroundings say.

    ``channels``: C of the map. ``hidden``: R. ``variant``: see above. ``bn_eps``: eps of the spatial part's BatchNorms.
    ValueError for settings that do not fit together.

    Keys (official): ``channel_att.gate_c.gate_c_{fc_0,bn_1,fc_final}.*``,
    ``spatial_att.gate_s.gate_s_{conv_reduce0,bn_reduce0,conv_di_{0,1},bn_di_{0,1},conv_final}.*``. cv-attention:
    ``ca.ca.{fc,bn}{0,1,2}.*``, ``ca.ca.last_fc.*``, ``sa.sa.{conv,bn}_reduce1.*``, ``sa.sa.{conv,bn}_{0,1,2}.*``,
    ``sa.sa.last_conv.*``.
    """

    described_by = ("variant",)

    def __init__(self, channels: int, hidden: int, variant: str = "official", bn_eps: float = 1e-5) -> None:
        super().__init__()
        require_variant("BAM", variant, VARIANTS)
        require_widths("BAM", channels, hidden)
        self.variant = variant
        self._form = form = BAM_FORMS[variant]
        for number, (layer, bn) in enumerate(form.channel):
            place(self, layer, nn.Linear(hidden if number else channels, hidden))
            place(self, bn, nn.BatchNorm1d(hidden))
        place(self, form.channel_last, nn.Linear(hidden, channels))
        for number, (layer, bn) in enumerate((form.reduce, *form.dilated)):
            if number:
                conv = nn.Conv2d(hidden, hidden, 3, padding=form.dilation, dilation=form.dilation)
            else:
                conv = nn.Conv2d(channels, hidden, 1)
            place(self, layer, conv)
            place(self, bn, nn.BatchNorm2d(hidden, eps=bn_eps))
        place(self, form.spatial_last, nn.Conv2d(hidden, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        by_channel, by_position = self._channel(x.mean(dim=(2, 3)))[:, :, None, None], self._spatial(x)
        both = by_channel * by_position if self._form.product else by_channel + by_position
        return x * (1 + torch.sigmoid(both))

    def _channel(self, means: Tensor) -> Tensor:
        """[N, C] -> [N, C]."""
        return self._chain(means, self._form.channel, self._form.channel_last)

    def _spatial(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, 1, H, W]."""
        return self._chain(x, (self._form.reduce, *self._form.dilated), self._form.spatial_last)

    def _chain(self, x: Tensor, layers: Sequence[tuple[str, str]], last: str) -> Tensor:
        for layer, bn in layers:
            x = torch.relu(self.get_submodule(bn)(self.get_submodule(layer)(x)))
        y: Tensor = self.get_submodule(last)(x)
        return y
