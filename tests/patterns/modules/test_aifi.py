"""AIFI against its formula, one head and one query at a time. Other implementations: see the template's tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.forms import AIFI_LAYERS
from graphsurgery.patterns.modules.aifi import AIFI
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, gelu, layer_norm, softmax

SIZE = (3, 5)


def positions(channels: int, height: int, width: int, variant: str, temperature: float) -> Array:
    """The code of every token, number by number."""
    quarter = channels // 4
    rates = [temperature ** (-i / quarter) for i in range(quarter)]
    if variant == "rtdetr":  # laid out column by column, columns first
        places = [(column, row) for column in range(width) for row in range(height)]
    else:
        places = [(row, column) for row in range(height) for column in range(width)]
    parts = [[f(at * rate) for at in place for f in (np.sin, np.cos) for rate in rates] for place in places]
    return np.array(parts)


@pytest.mark.parametrize(("activation", "temperature"), [("gelu", 10000.0), ("relu", 20.0)])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("variant", AIFI_LAYERS)
def test_agrees_with_the_formula(variant: str, before: bool, activation: str, temperature: float) -> None:
    channels, heads, eps = 8, 2, 1e-3
    module = randomised(AIFI(channels, SIZE, 6, heads, before, variant, eps, activation, temperature), 1.0)
    state, (attention, first, second) = state_of(module), AIFI_LAYERS[variant]
    x = np.random.default_rng(1).standard_normal((2, channels, *SIZE))
    pos = positions(channels, *SIZE, variant, temperature)
    act = {"gelu": gelu, "relu": lambda hidden: np.maximum(hidden, 0)}[activation]

    def linear(tokens: Array, name: str) -> Array:
        return tokens @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(tokens: Array, name: str) -> Array:
        return layer_norm(tokens, state[f"{name}.weight"], state[f"{name}.bias"], 2, eps)

    def attended(t: Array) -> Array:
        weights, biases = (np.split(state[f"{attention}.in_proj_{part}"], 3) for part in ("weight", "bias"))
        q, k, v = (
            (tokens @ weight.T + bias).reshape(2, 15, heads, -1)
            for tokens, weight, bias in zip((t + pos, t + pos, t), weights, biases, strict=True)
        )
        o = np.zeros_like(v)
        for image, query, head in np.ndindex(2, 15, heads):
            logits = k[image, :, head] @ q[image, query, head] / np.sqrt(channels // heads)
            o[image, query, head] = softmax(logits, 0) @ v[image, :, head]
        return linear(o.reshape(t.shape), f"{attention}.out_proj")

    t = x.reshape(2, channels, 15).transpose(0, 2, 1)
    if before:
        t = t + attended(norm(t, "norm1"))
        t = t + linear(act(linear(norm(t, "norm2"), first)), second)
    else:
        t = norm(t + attended(t), "norm1")
        t = norm(t + linear(act(linear(t, first)), second), "norm2")
    np.testing.assert_allclose(run(module, x), t.transpose(0, 2, 1).reshape(x.shape), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("variant", AIFI_LAYERS)
def test_training_and_another_size(variant: str) -> None:
    module = AIFI(8, SIZE, 6, 2, variant=variant)
    assert_trains(module, 8, SIZE)
    with pytest.raises(ValueError, match="made for maps of 3x5, got 5x3"):
        module(torch.zeros(1, 8, 5, 3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 6, "heads": 2}, "multiple of 4 and of its heads"),
        ({"channels": 8, "heads": 3}, "multiple of 4 and of its heads"),
        ({"channels": 8, "heads": 2, "hidden": 0}, "hidden width of at least 1"),
        ({"channels": 8, "heads": 2, "activation": "silu"}, "activations gelu, relu, not 'silu'"),
        ({"channels": 8, "heads": 2, "variant": "x"}, "variants rtdetr, ultralytics"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AIFI(size=SIZE, **settings)  # type: ignore[arg-type]
