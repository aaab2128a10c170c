"""What several modules are made of, and what they check."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

_WITH_OWN_START = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


def depthwise(channels: int, kernel: tuple[int, int], *, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """A depthwise convolution that keeps the size of the map; both sides of the kernel are odd."""
    padding = (dilation * (kernel[0] - 1) // 2, dilation * (kernel[1] - 1) // 2)
    return nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=bias)


def named(**layers: nn.Module) -> nn.Sequential:
    """Layers one after the other, under names of their own."""
    return nn.Sequential(OrderedDict(layers))


def conv_with_bn(
    inputs: int, outputs: int, eps: float, kernel: int = 1, *, groups: int = 1, scale: float = 1.0
) -> nn.Sequential:
    """A convolution that keeps the size, ``c``, and its BatchNorm, ``bn``, whose weight starts at ``scale``."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=eps)
    nn.init.constant_(norm.weight, scale)
    return named(c=conv, bn=norm)


class _UnderM(nn.Module):
    """A module under the name ``m``, plus its input."""

    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.m(x)
        return x + inner


def under_m(module: nn.Module) -> nn.Module:
    """A module with a shortcut, under the name ``m``: how SHViT and EfficientViT write it."""
    return _UnderM(module)


def place(root: nn.Module, name: str, layer: nn.Module) -> None:
    """Make ``layer`` the submodule of ``root`` with that dotted name."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, layer)


def reset_layers(module: nn.Module) -> None:
    """Draw the parameters of all layers in a module anew, as torch draws those of each."""
    for layer in module.modules():
        if isinstance(layer, _WITH_OWN_START):
            layer.reset_parameters()


class Described(nn.Module):
    """A module that names some of its attributes in ``repr``."""

    described_by: ClassVar[tuple[str, ...]] = ()

    def extra_repr(self) -> str:
        """The settings, for ``repr``."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.described_by)


class Redrawable(Described):
    """A module whose parameters are all those of torch's layers."""

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as torch draws those of its layers."""
        reset_layers(self)


class ProjectedUnit(nn.Module):
    """x + proj_2(unit(gelu(proj_1(x)))): a gating unit between two 1x1 convolutions, with the shortcut."""

    unit: ClassVar[type[nn.Module]]
    """its class, of which the constructor takes the number of channels and the ``settings``"""

    def __init__(self, channels: int, **settings: object) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, channels, 1)
        self.activation = nn.GELU()
        self.spatial_gating_unit = self.unit(channels, **settings)
        self.proj_2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        inner: Tensor = self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))
        return x + inner


def require_widths(name: str, channels: int, hidden: int | None) -> None:
    """ValueError for widths below 1."""
    if channels < 1 or (hidden is not None and hidden < 1):
        raise ValueError(f"{name} needs channels and hidden of at least 1, got {channels} and {hidden}")


def require_channels(name: str, channels: int) -> None:
    """ValueError where there is no channel."""
    if channels < 1:
        raise ValueError(f"{name} needs at least one channel, got {channels}")


def require_heads(name: str, channels: int, heads: int) -> None:
    """ValueError for heads that do not divide the channels."""
    if channels < 1 or heads < 1 or channels % heads:
        raise ValueError(f"{name} needs heads that divide its channels, got {heads} for {channels}")


def require_variant(name: str, variant: str, variants: Iterable[str]) -> None:
    """ValueError for a variant that there is not."""
    if variant not in variants:
        raise ValueError(f"{name} has the variants {', '.join(variants)}, not {variant!r}")


def require_size(x: Tensor, size: tuple[int, int], name: str) -> None:
    """ValueError for a map of another height and width than a module was made for."""
    if not tracing() and tuple(x.shape[2:]) != size:
        raise ValueError(f"this {name} is made for maps of {size[0]}x{size[1]}, got {x.shape[2]}x{x.shape[3]}")


def require_positions(x: Tensor, name: str, what: str) -> None:
    """ValueError for a map of one position, where ``what`` would be 0/0."""
    if not tracing() and x.shape[2] * x.shape[3] < 2:
        raise ValueError(f"{name} needs a map of at least two positions: {what} of a 1x1 map is 0/0")


def tracing() -> bool:
    """Whether a tracing exporter runs, which turns sizes into tensors and warns of every branch on one."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
