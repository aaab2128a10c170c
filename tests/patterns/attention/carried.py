"""Weights of another module, carried over by the tool's own key mapping, and the comparison with that module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import Built, Settings, build, feature_map
from tests.patterns.attention.verdicts import assert_close


def inserted(
    spelled: str, settings: Settings, state: Mapping[str, Any], channels: int, *, target: str = "tensorrt"
) -> Built:
    """A template with the weights of another module, as ``--weights`` reads them."""
    feature = feature_map(channels, 13, 21, batch=2)
    arrays = {key: value.detach().numpy() for key, value in state.items()}
    block, given = fit(make_block(spelled, settings), feature, arrays)
    return build(spelled, block.values, feature, weights=given, target=target)


def trained(module: torch.nn.Module) -> torch.nn.Module:
    """The module with statistics, scales and shifts that are no longer at their first values, nor any layer at 0."""
    torch.manual_seed(5)
    for key, values in module.state_dict().items():
        if values.ndim < 2 and values.is_floating_point():
            values.uniform_(0.5, 2.0) if key.endswith("running_var") else values.uniform_(-1.0, 1.0)
        elif values.is_floating_point() and not values.any():
            values.normal_(std=0.2)
    return module


def assert_is(built: Built, module: torch.nn.Module, *, atol: float = 1e-9) -> None:
    """Template and module both give what the other module gives, at two images of different scale.

    ``atol``: for the module, whose weights come back out of the float32 of the template.
    """
    x = np.random.default_rng(3).standard_normal((2, built.feature.channels, 13, 21)).astype(np.float32)
    x[1] *= 5
    with torch.no_grad():
        expected = module.double().eval()(torch.from_numpy(x).double()).numpy()
    slack = built.slack(x)
    assert_close(Runtime(built.model)(x), expected, x, "float32", slack=slack)
    np.testing.assert_allclose(built.expected(x), expected, rtol=1e-6, atol=atol + slack)
