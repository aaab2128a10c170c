"""Whether a block learns: a saturated gate leaves no gradient, and no training ever opens it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..feature_map import FeatureMap

_LEAST = 1e-6
_SIDE = 20
"""of the map that is tried where the size does not matter"""


def learns(module: nn.Module, feature: FeatureMap) -> bool:
    """Whether any parameter of a block gets a gradient, for inputs and losses drawn from a normal distribution."""
    height, width = feature.size if feature.static else (_SIDE, _SIDE)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(2, feature.channels, height, width)
        y = module.float().cpu()(x)
        parameters = [each for each in module.parameters() if each.requires_grad]
        if not y.requires_grad:
            return False
        found: Sequence[Tensor | None] = torch.autograd.grad(y, parameters, torch.randn_like(y), allow_unused=True)
    return any(each is not None and float(each.abs().max()) > _LEAST for each in found)
