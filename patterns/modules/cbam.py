"""CBAM, convolutional block attention module: PyTorch module.

Paper: "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv:1807.06521.
Sources of the formula: Jongchan/attention-module, ``MODELS/cbam.py`` (official); Ultralytics, ``nn/modules/conv.py``
(ultralytics); timm, ``layers/cbam.py`` (timm); the listing that most YOLO forks copied (yolo-port); the catalogue
cv-attention (cv-attention); xmu-xiaoma666/External-Attention-pytorch, ``CBAM.py`` (external-attention).

    channel   z = mlp(mean of x over H, W) + mlp(max of x over H, W)      x1 = x * sigmoid(z)
    spatial   f = [two planes: max and mean of x1 over the channels]      y = x1 * sigmoid(conv(f))

What differs:

    official       mlp of two Linear layers with biases; planes max, mean; conv without bias, then BatchNorm
    ultralytics    z = fc(mean) with one C x C layer with bias and no max; planes mean, max; conv alone
    timm           mlp of two 1x1 convolutions without biases; planes mean, max; conv without bias, then BatchNorm
    yolo-port      as timm without the BatchNorm
    cv-attention   mlp as timm; planes max, mean; conv with bias and no BatchNorm
    external-attention   as cv-attention, with a kernel of 49, and y = x1 * sigmoid(conv(f)) + x

official can have other poolings in the place of mean and maximum over H, W (``pool_types``: avg, max, lp, the root of
the sum of squares, and lse, the logarithm of the sum of exponentials, joined by +), and the channel part alone, y = x1.

- The eps of the BatchNorm is torch's 1e-5; Ultralytics sets 1e-3 in every model that it builds from YAML. It is not in
  a state_dict: pass it as ``bn_eps``.
- The published ResNet starts with scale 0 in that BatchNorm (a spatial gate of exactly 0.5); the class itself does not,
  and neither does this.
- Identity: official: last Linear 0 with bias 20, BatchNorm scale 0 and shift 20. The others have no bias in one of the
  two parts, and no identity.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..forms import CBAM_FORMS, CBAM_POOLS
from .layers import Redrawable, place, require_variant, require_widths

VARIANTS = tuple(CBAM_FORMS)


class CBAM(Redrawable):
    """Gate of every channel by its mean and maximum, then of every position by those over the channels.

    ``channels``: C of the map. ``variant``: see above. ``hidden``: R, the width of the mlp; not for ultralytics, which
    has none. ``kernel``: odd size of the spatial convolution; 7, or 49 in external-attention, where not given.
    ``bn_eps``: eps of the BatchNorm, where there is one. ``pool_types``, ``spatial``: of official, see above.
    ValueError for settings that do not fit together.

    Keys (official): ``ChannelGate.mlp.1.{weight [R, C],bias}``, ``ChannelGate.mlp.3.{weight [C, R],bias}``,
    ``SpatialGate.spatial.conv.weight`` [1, 2, 7, 7], ``SpatialGate.spatial.bn.*`` [1].
    """

    described_by = ("variant",)

    def __init__(
        self,
        channels: int,
        variant: str = "official",
        hidden: int | None = None,
        kernel: int | None = None,
        bn_eps: float = 1e-5,
        pool_types: str = "avg+max",
        spatial: bool = True,
    ) -> None:
        super().__init__()
        require_variant("CBAM", variant, CBAM_FORMS)
        require_widths("CBAM", channels, hidden)
        self.variant = variant
        self._form = form = CBAM_FORMS[variant]
        kernel = form.kernel if kernel is None else kernel
        if kernel % 2 == 0:
            raise ValueError(f"CBAM needs an odd kernel, got {kernel}")
        self._pools = pool_types.split("+") if len(form.layers) == 2 else ["avg"]
        if not set(self._pools) <= set(CBAM_POOLS):
            raise ValueError(f"CBAM has the poolings {', '.join(CBAM_POOLS)}, not {pool_types!r}")
        if variant != "official" and (pool_types != "avg+max" or not spatial):
            raise ValueError(f"CBAM {variant} has neither other poolings nor the channel part alone")
        self._spatial = spatial
        widths = [channels, channels]
        if len(form.layers) == 2:
            if hidden is None:
                raise ValueError(f"CBAM {variant} needs the hidden width")
            widths = [channels, hidden, channels]
        for name, inner, outer in zip(form.layers, widths, widths[1:], strict=False):
            layer = nn.Linear(inner, outer) if form.linear else nn.Conv2d(inner, outer, 1, bias=form.bias)
            place(self, name, layer)
        if not spatial:
            return
        place(self, form.conv, nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=form.conv_bias))
        if form.bn is not None:
            place(self, form.bn, nn.BatchNorm2d(1, eps=bn_eps, momentum=0.01))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        z = torch.stack([self._mlp(_POOLINGS[kind](x)) for kind in self._pools]).sum(dim=0)
        gated = x * torch.sigmoid(z)
        if self._spatial:
            gated = gated * torch.sigmoid(self._planes_convolved(gated))
        return x + gated if self._form.adds_input else gated

    def _planes_convolved(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, 1, H, W]."""
        planes = [x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)]
        if self._form.max_first:
            planes.reverse()
        gate: Tensor = self.get_submodule(self._form.conv)(torch.cat(planes, dim=1))
        if self._form.bn is not None:
            gate = self.get_submodule(self._form.bn)(gate)
        return gate

    def _mlp(self, pooled: Tensor) -> Tensor:
        """[N, C, 1, 1] -> [N, C, 1, 1]."""
        for number, name in enumerate(self._form.layers):
            layer = self.get_submodule(name)
            pooled = torch.relu(pooled) if number else pooled
            pooled = layer(pooled.flatten(1))[:, :, None, None] if self._form.linear else layer(pooled)
        return pooled


_POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda x: x.mean(dim=(2, 3), keepdim=True),
    "max": lambda x: x.amax(dim=(2, 3), keepdim=True),
    "lp": lambda x: x.square().sum(dim=(2, 3), keepdim=True).sqrt(),
    "lse": lambda x: x.logsumexp(dim=(2, 3), keepdim=True),
}
