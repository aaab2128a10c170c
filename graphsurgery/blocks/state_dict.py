"""Loading the weights of a block into its PyTorch module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InsertionError

if TYPE_CHECKING:
    import torch


def load_weights(module: torch.nn.Module, weights: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Load parameters by official key, float64; counters and tables of indices stay as they are."""
    import torch

    state = {key: torch.from_numpy(np.array(values, dtype=np.float64)) for key, values in weights.items()}
    module.double()
    missing, unexpected = module.load_state_dict(state, strict=False)
    own = module.state_dict()
    lost = [key for key in missing if key not in own or own[key].is_floating_point()] + list(unexpected)
    if lost:
        raise InsertionError(f"the module and the record disagree on the weights {', '.join(lost)}")
