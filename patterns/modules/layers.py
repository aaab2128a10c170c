"""What several modules are made of, and what they check."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_WITH_OWN_START = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)


def depthwise(channels: int, kernel: tuple[int, int], *, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """A depthwise convolution that keeps the size of the map; both sides of the kernel are odd."""
    padding = (dilation * (kernel[0] - 1) // 2, dilation * (kernel[1] - 1) // 2)
    return nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=bias)


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
