"""Focused linear attention against its formula, one query and one head at a time; windows, keys and other layouts."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.blocks.block import Block
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.patterns.modules.focused import FocusedCSwinAttention, FocusedLinearAttention
from graphsurgery.userblocks import make_block
from tests.patterns.modules.checks import assert_trains, randomised, run, shapes, state_of
from tests.patterns.modules.layers import Array, State, depthwise, pointwise


def focused(z: Array, given: State, factor: int) -> Array:
    """[C], one position."""
    z = (np.maximum(z, 0) + 1e-6) / np.log1p(np.exp(given["scale"][0, 0]))
    powers = z**factor
    result: Array = np.sqrt((z**2).sum()) * powers / np.sqrt((powers**2).sum())
    return result


def attended(q: Array, k: Array, v: Array, given: State, factor: int, heads: int, small: float) -> Array:
    """[C, positions] each -> the same."""
    channels, places = q.shape
    q = np.stack([focused(q[:, i], given, factor) for i in range(places)], 1)
    k = np.stack([focused(k[:, i] + given["positional_encoding"][0, i], given, factor) for i in range(places)], 1)
    y = np.zeros_like(v)
    for head, i in np.ndindex(heads, places):
        part = slice(head * channels // heads, (head + 1) * channels // heads)
        products = q[part, i] @ k[part]
        y[part, i] = v[part] @ products / places / (products.mean() + small)
    return y


def tiled(given: State, heads: int) -> State:
    return {key: np.concatenate([given[key]] * heads) for key in ("dwc.weight", "dwc.bias")}


@pytest.mark.parametrize(("window", "factor", "bias"), [(None, 3, True), (3, 2, False)])
def test_agrees_with_the_formula(window: int | None, factor: int, bias: bool) -> None:
    module = randomised(FocusedLinearAttention(8, (3, 6), 2, window, factor, 3, bias))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 8, 3, 6))
    y = np.zeros_like(x)
    for image, start in np.ndindex(2, 6 // (window or 6)):
        columns = slice(start * (window or 6), (start + 1) * (window or 6))
        q, k, v = np.split(pointwise(x[image : image + 1, :, :, columns], given, "qkv"), 3, axis=1)
        flat = (part[0].reshape(8, -1) for part in (q, k, v))
        a = attended(*flat, given, factor, 2, 1e-6).reshape(v.shape)
        y[image, :, :, columns] = pointwise(a + depthwise(v, tiled(given, 2), "dwc"), given, "proj")[0]
    np.testing.assert_allclose(run(module, x), y, rtol=1e-9, atol=1e-10)


def test_cswin_agrees_with_the_formula() -> None:
    module = randomised(FocusedCSwinAttention(8, (3, 5), 2, 3, 5))
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((1, 8, 3, 5))
    q, k, v = np.split(pointwise(x, given, "conv_qkv"), 3, axis=1)
    a = attended(*(part[0].reshape(8, -1) for part in (q, k, v)), given, 3, 2, 1e-6 / 15).reshape(v.shape)
    y = a + depthwise(v, tiled(given, 2), "dwc") + depthwise(v, given, "get_v")
    np.testing.assert_allclose(run(module, x), y, rtol=1e-9, atol=1e-10)


def test_keys() -> None:
    assert shapes(FocusedLinearAttention(8, (4, 6), 2, 2)) == {
        "scale": (1, 1, 8),
        "positional_encoding": (1, 4, 8),
        "dwc.weight": (4, 1, 5, 5),
        "dwc.bias": (4,),
        "qkv.weight": (24, 8),
        "qkv.bias": (24,),
        "proj.weight": (8, 8),
        "proj.bias": (8,),
    }
    assert set(shapes(FocusedCSwinAttention(8, (4, 6), 2))) == {
        *("scale", "positional_encoding", "conv_qkv.weight"),
        *(f"{layer}.{part}" for layer in ("dwc", "get_v") for part in ("weight", "bias")),
    }


def test_q_and_kv_apart_are_read() -> None:
    block: Block = make_block("focused", {})
    module = FocusedLinearAttention(8, (4, 6), 2)
    state = state_of(module)
    apart = {key: values for key, values in state.items() if not key.startswith("qkv.")}
    for part in ("weight", "bias"):
        apart |= {f"q.{part}": state[f"qkv.{part}"][:8], f"kv.{part}": state[f"qkv.{part}"][8:]}
    joined = block.regrouped(apart)
    assert set(joined) == set(state)
    assert all(np.array_equal(joined[key], state[key]) for key in state)
    found = block.settings_from_weights({key: values.shape for key, values in joined.items()})
    assert found == {"heads": 2, "kernel": 5, "qkv_bias": True}


def test_training() -> None:
    assert_trains(FocusedLinearAttention(8, (8, 9), 2), 8)
    assert_trains(FocusedCSwinAttention(8, (8, 9), 2), 8)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a window that divides 20 and 20, got 7"):
        FocusedLinearAttention(8, (20, 20), 2, 7)
    with pytest.raises(ValueError, match="made for maps of 4x6, got 4x5"):
        run(randomised(FocusedLinearAttention(8, (4, 6), 2)), np.zeros((1, 8, 4, 5)))
    with pytest.raises(BlockError, match="20 x 20, which a window of 7 does not divide"):
        make_block("focused", {"window": 7}).check(FeatureMap(8, 20, 20))
    with pytest.raises(BlockError, match="a factor of at most 8"):
        make_block("focused", {"factor": 9}).check(FeatureMap(8, 20, 20))
