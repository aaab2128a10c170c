"""Gather-Excite: PyTorch module.

Paper: "Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks", NeurIPS 2018, arXiv:1810.12348.
Sources of the formula: hujie-frank/GENet (the prototxts ``RN50-GEPF``, ``RN50-GEP`` and ``RN50-GEPP`` for the global
extent, the figures for extent 8) and, for extents 2 and 4, timm's ``GatherExcite``. BN is a BatchNorm, up() enlarges to
H x W by nearest neighbour.

    y = x * sigmoid(up(excite(gather(x))))

    theta-minus   gather: mean over a window of (2e-1) x (2e-1) positions every e positions; extent 0: over the map
    theta         gather: log2(e) times a depthwise 3x3 convolution of stride 2 and BN, with a ReLU between the stages;
                  extent 0: one depthwise convolution as large as the map, without padding, and BN
    theta-plus    gather as theta with a ReLU after the last BN too; excite: 1x1 convolution to ``hidden``, ReLU, 1x1
                  convolution back to C, both with biases
    timm          gather as theta-minus, half of it the maximum over the same positions with ``add_maxpool``, or, with
                  ``extra_params``, as theta, but that the convolution as large as the map has (H - 1) // 2 and
                  (W - 1) // 2 rows and columns of zeros on either side; with ``mlp``, excite as theta-plus

- No convolution of a gather has a bias. Windows at the border average over the positions inside the map
  (``count_include_pad=False``, as timm; Caffe's pooling would count the padding, and no prototxt shows extents 2, 4
  and 8).
- timm pads the global convolution, which then yields a map instead of one value, and has no ReLU between the gather's
  BN and ``mlp.fc1``. Both differ from the published prototxts. timm is the class of timm up to 1.0.20, which YOLO
  collections copied; later versions can build the poolings without ``mlp`` alone.
- theta-plus at extents 2, 4 and 8 is published nowhere; it is the global one's excite after the gather of that extent.
- Identity: theta: scale 0 and shift 20 in the last BN; theta-plus: ``mlp.fc2.weight`` 0 and ``mlp.fc2.bias`` 20;
  timm: as that of the two which it ends as; theta-minus, and timm without parameters, have none.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Described, named, require_size, require_variant, require_widths, reset_layers, tracing

VARIANTS = ("theta-minus", "theta", "theta-plus", "timm")
EXTENTS = (0, 2, 4, 8)


class GatherExcite(Described):
    """Gate of every position by what its surroundings say.

    ``channels``: C of the map. ``extent``: 0 (the whole map), 2, 4 or 8 positions. ``size``: (H, W) of the map, needed
    and used by convolutions at extent 0 only, which then take maps of this size alone. ``hidden``: R, for theta-plus
    and timm; C/16 rounded half up, at least 1, where not given. ``bn_eps``: 1e-5 as published; a module that lived in
    an Ultralytics model has 1e-3. ``extra_params``, ``mlp``, ``add_maxpool``: see above, for timm only. ValueError for
    settings that do not fit together.

    Keys, with i from 1 to log2(extent), or 1 at extent 0: ``gather.conv{i}.weight`` [C, 1, 3, 3] ([C, 1, H, W] at
    extent 0), ``gather.norm{i}.{weight,bias,running_mean,running_var}`` [C] and ``.num_batches_tracked``; theta-plus
    and timm's mlp add ``mlp.fc1.weight`` [R, C, 1, 1], ``mlp.fc1.bias`` [R], ``mlp.fc2.weight`` [C, R, 1, 1],
    ``mlp.fc2.bias`` [C]. Poolings have none.
    """

    described_by = ("variant", "extent")

    def __init__(
        self,
        channels: int,
        variant: str = "theta-minus",
        extent: int = 0,
        size: tuple[int, int] | None = None,
        hidden: int | None = None,
        bn_eps: float = 1e-5,
        extra_params: bool = False,
        mlp: bool = True,
        add_maxpool: bool = False,
    ) -> None:
        super().__init__()
        require_variant("GatherExcite", variant, VARIANTS)
        if extent not in EXTENTS:
            raise ValueError(f"GatherExcite has the extents 0 (the whole map), 2, 4 and 8, not {extent}")
        if hidden is not None and variant not in ("theta-plus", "timm"):
            raise ValueError(f"GatherExcite {variant} has no hidden width; only theta-plus and timm have")
        timm = variant == "timm"
        convolves = extra_params if timm else variant != "theta-minus"
        excites = mlp if timm else variant == "theta-plus"
        if add_maxpool and (convolves or not timm):
            raise ValueError("GatherExcite adds a maximum to the poolings of timm only")
        require_widths("GatherExcite", channels, hidden)
        self.variant = variant
        self.extent = extent
        self.map_size: tuple[int, int] | None = None
        self.gather: nn.Module
        self.mlp: nn.Module = nn.Identity()
        self._enlarges = extent > 0 or (timm and convolves)
        if not convolves:
            self.gather = _HalfMaximum(_pool(extent), extent) if add_maxpool else _pool(extent)
        else:
            if extent == 0:
                if size is None:
                    raise ValueError(f"GatherExcite {variant} of extent 0 needs the size of the map")
                self.map_size = (size[0], size[1])
            last_relu = variant == "theta-plus"
            self.gather = _convolutions(channels, extent, self.map_size, bn_eps, last_relu=last_relu, padded=timm)
        if excites:
            hidden = hidden if hidden is not None else max(1, int(channels / 16 + 0.5))
            self.mlp = named(fc1=nn.Conv2d(channels, hidden, 1), act=nn.ReLU(), fc2=nn.Conv2d(hidden, channels, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew: torch's default, but for the 1x1 convolutions of theta-plus, which the published
        prototxt fills with a Gaussian of deviation 0.01 and zero biases."""
        reset_layers(self.gather)
        if self.variant == "timm":
            reset_layers(self.mlp)
            return
        for layer in self.mlp.children():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]. ValueError for a map of another size than the global gather was made for."""
        if self.map_size is not None:
            require_size(x, self.map_size, "GatherExcite")
        context = self.mlp(self.gather(x))
        if self._enlarges:
            context = _enlarge(context, x)
        return x * torch.sigmoid(context)


def _pool(extent: int) -> nn.Module:
    """The gather of theta-minus: [N, C, H, W] -> [N, C, ceil(H/extent), ceil(W/extent)]; [N, C, 1, 1] for extent 0."""
    if extent == 0:
        return nn.AdaptiveAvgPool2d(1)
    return nn.AvgPool2d(2 * extent - 1, stride=extent, padding=extent - 1, count_include_pad=False)


class _HalfMaximum(nn.Module):
    """Half of a mean and half of the maximum over the same positions."""

    def __init__(self, mean: nn.Module, extent: int) -> None:
        super().__init__()
        self.mean = mean
        self.maximum: nn.Module = nn.AdaptiveMaxPool2d(1)
        if extent:
            self.maximum = nn.MaxPool2d(2 * extent - 1, stride=extent, padding=extent - 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, h, w]."""
        pooled: Tensor = 0.5 * self.mean(x) + 0.5 * self.maximum(x)
        return pooled


def _convolutions(
    channels: int, extent: int, size: tuple[int, int] | None, bn_eps: float, *, last_relu: bool, padded: bool
) -> nn.Sequential:
    """The gather of theta and theta-plus: a kernel of ``size`` where it is given, else stages of 3x3 for ``extent``.

    ``padded``: the kernel of ``size`` has zeros around the map.
    """
    gather = nn.Sequential()
    stages = 1 if size is not None else extent.bit_length() - 1
    for stage in range(1, stages + 1):
        if size is not None:
            border = ((size[0] - 1) // 2, (size[1] - 1) // 2) if padded else 0
            conv = nn.Conv2d(channels, channels, size, padding=border, groups=channels, bias=False)
        else:
            conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        gather.add_module(f"conv{stage}", conv)
        gather.add_module(f"norm{stage}", nn.BatchNorm2d(channels, eps=bn_eps))
        if stage < stages or last_relu:
            gather.add_module(f"act{stage}", nn.ReLU())
    return gather


def _enlarge(z: Tensor, x: Tensor) -> Tensor:
    """``z`` at the height and width of ``x``, by nearest neighbour: position i of n takes position floor(i * m / n)."""
    exporting = tracing() or torch.compiler.is_compiling()
    if exporting or not any(_missed(z.shape[axis], x.shape[axis]) for axis in (2, 3)):
        return functional.interpolate(z, size=x.shape[2:], mode="nearest")
    for axis in (2, 3):
        z = z.index_select(axis, torch.arange(x.shape[axis], device=z.device) * z.shape[axis] // x.shape[axis])
    return z


@cache
def _missed(m: int, n: int) -> bool:
    """Whether torch, which takes m / n in float32, misses the rule of nearest neighbours: for 122 from 16 it does."""
    step = torch.tensor(m / n, dtype=torch.float32)
    return not torch.equal((torch.arange(n) * step).long(), torch.arange(n) * m // n)
