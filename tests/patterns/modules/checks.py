"""What the tests of the PyTorch modules do with a module."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)
Array = np.ndarray[Any, Any]


def randomised(module: Module, std: float = 0.7) -> Module:
    """The module in float64, evaluation mode, with scales of both signs and statistics far from 0 and 1."""
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.3, 2.0)
        elif value.is_floating_point():
            value.normal_(std=std / math.sqrt(value[0].numel() if value.ndim > 1 else 1))
    return module.double().eval()


def state_of(module: nn.Module) -> dict[str, Array]:
    """A copy of its state in numpy, float64."""
    return {key: value.detach().double().numpy().copy() for key, value in module.state_dict().items()}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Key -> shape of everything but the counters of the BatchNorms."""
    return {k: tuple(v.shape) for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}


def run(module: nn.Module, x: Array) -> Array:
    """What the module gives for `x`."""
    with torch.no_grad():
        return np.asarray(module(torch.from_numpy(x)).numpy())


def assert_trains(module: nn.Module, channels: int, size: tuple[int, int] = (8, 9)) -> None:
    """In training mode every parameter gets a finite gradient, and not all of it is zero.

    Except for biases: on one in front of a softmax, or of a batch's statistics, nothing depends.
    """
    module = module.double().train()
    x = torch.randn(4, channels, *size, dtype=torch.float64)
    module(x).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-12 or name.endswith("bias"), name


def scale(module: nn.Module, channels: int) -> float:
    """Norm of the result over that of the input, for what follows a SiLU."""
    x = nn.functional.silu(torch.randn(2, channels, 20, 20))
    with torch.no_grad():
        return float(module.eval()(x).norm() / x.norm())
