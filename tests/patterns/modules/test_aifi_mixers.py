"""AIFI with SwiftFormer's attention and with LITv2's against their formulas, one position or one head at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.patterns.modules.aifi import AdditiveAIFI, HiLoAIFI
from graphsurgery.userblocks import make_block
from tests.patterns.attention.fitting import fit
from tests.patterns.modules.checks import assert_trains, randomised, run, shapes, state_of
from tests.patterns.modules.layers import Array, State, gelu, layer_norm, pointwise, softmax


def around(x: Array, given: State, attended: Callable[[Array], Array], eps: float) -> Array:
    """The encoder layer, with what it attends with."""

    def norm(y: Array, name: str) -> Array:
        return layer_norm(y, given[f"{name}.weight"], given[f"{name}.bias"], 1, eps)

    x = norm(x + attended(x), "norm1")
    return norm(x + pointwise(gelu(pointwise(x, given, "fc1")), given, "fc2"), "norm2")


def test_additive_agrees_with_the_formula() -> None:
    module = randomised(AdditiveAIFI(6, 5, 1e-3), 1.0)
    given = state_of(module)

    def attended(x: Array) -> Array:
        q, k = (pointwise(x, given, f"effaddattention.{name}") for name in ("to_query", "to_key"))
        for image, row, column in np.ndindex(2, 3, 5):
            for each in (q, k):
                each[image, :, row, column] /= np.sqrt((each[image, :, row, column] ** 2).sum())
        weights = np.einsum("nchw,c->nhw", q, given["effaddattention.w_g"][:, 0])
        g = np.zeros((2, 6, 1, 1))
        for image in range(2):
            shares = weights[image] / np.sqrt((weights[image] ** 2).sum())
            g[image, :, 0, 0] = (q[image] * shares).sum((1, 2))
        return pointwise(pointwise(g * k, given, "effaddattention.Proj") + q, given, "effaddattention.final")

    x = np.random.default_rng(1).standard_normal((2, 6, 3, 5))
    np.testing.assert_allclose(run(module, x), around(x, given, attended, 1e-3), rtol=1e-10, atol=1e-11)


def attention(q: Array, k: Array, v: Array) -> Array:
    """One head, [positions, d] each."""
    y = np.zeros_like(q)
    for number, query in enumerate(q):
        y[number] = softmax(k @ query / np.sqrt(len(query)), 0) @ v
    return y


def hilo(x: Array, given: State, heads: int, low: int, side: int) -> Array:
    head = x.shape[1] // heads
    down, right = -x.shape[2] % side, -x.shape[3] % side
    padded = np.pad(x, ((0, 0), (0, 0), (0, down), (0, right)))
    (rows, columns), parts = padded.shape[2:], []
    if low < heads:
        q, k, v = np.split(pointwise(padded, given, "HiLo.h_qkv"), 3, axis=1)
        o = np.zeros_like(q)
        for image, number, row, column in np.ndindex(len(x), heads - low, rows // side, columns // side):
            at = (image, slice(number * head, (number + 1) * head))
            at = (*at, slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
            tokens = (z[at].reshape(head, -1).T for z in (q, k, v))
            o[at] = attention(*tokens).T.reshape(head, side, side)
        parts.append(pointwise(o, given, "HiLo.h_proj"))
    if low:
        means = padded.reshape(*x.shape[:2], rows // side, side, columns // side, side).mean((3, 5))
        q, (k, v) = pointwise(padded, given, "HiLo.l_q"), np.split(pointwise(means, given, "HiLo.l_kv"), 2, axis=1)
        o = np.zeros_like(q)
        for image, number in np.ndindex(len(x), low):
            part = slice(number * head, (number + 1) * head)
            tokens = (z[image, part].reshape(head, -1).T for z in (q, k, v))
            o[image, part] = attention(*tokens).T.reshape(head, rows, columns)
        parts.append(pointwise(o, given, "HiLo.l_proj"))
    return np.concatenate(parts, axis=1)[:, :, : x.shape[2], : x.shape[3]]


@pytest.mark.parametrize(
    ("heads", "alpha", "low", "side", "bias"),
    [(4, 0.5, 2, 2, False), (4, 0.3, 1, 3, True), (2, 1.0, 2, 2, True), (2, 0.4, 0, 2, False), (2, 0.0, 2, 1, False)],
    ids=str,
)
def test_hilo_agrees_with_the_formula(heads: int, alpha: float, low: int, side: int, bias: bool) -> None:
    module = randomised(HiLoAIFI(8, 5, heads, side, alpha, bias, 1e-3), 1.0)
    given, x = state_of(module), np.random.default_rng(1).standard_normal((2, 8, 4, 7))
    assert ("HiLo.l_q.bias" in given or "HiLo.h_qkv.bias" in given) is bias
    expected = around(x, given, lambda x: hilo(x, given, heads, low, side), 1e-3)
    np.testing.assert_allclose(run(module, x), expected, rtol=1e-10, atol=1e-11)


def test_the_keys_of_the_collections() -> None:
    layers = {f"{name}.{part}" for name in ("fc1", "fc2", "norm1", "norm2") for part in ("weight", "bias")}
    found = shapes(AdditiveAIFI(8, 6))
    own = {f"effaddattention.{n}.{p}" for n in ("to_query", "to_key", "Proj", "final") for p in ("weight", "bias")}
    assert set(found) == layers | own | {"effaddattention.w_g"}
    assert found["effaddattention.w_g"] == (8, 1)
    assert found["fc1.weight"] == (6, 8, 1, 1)
    found = shapes(HiLoAIFI(8, 6, 4))
    own = {f"HiLo.{name}" for name in ("l_q.weight", "l_kv.weight", "l_proj.weight", "l_proj.bias")}
    assert set(found) == layers | own | {f"HiLo.{name}" for name in ("h_qkv.weight", "h_proj.weight", "h_proj.bias")}
    assert found["HiLo.l_kv.weight"] == (8, 8)
    assert found["HiLo.h_qkv.weight"] == (12, 8)


@pytest.mark.parametrize(
    ("variant", "renamed", "settings"),
    [
        ("efficient-additive", {"effaddattention.Proj": "effaddattention.proj"}, {"hidden": 6}),
        ("hilo", {"HiLo.": "hilo."}, {"hidden": 6, "alpha": 0.25, "qkv_bias": True}),
    ],
)
def test_weights_under_other_keys(variant: str, renamed: dict[str, str], settings: dict[str, object]) -> None:
    feature, block = FeatureMap(8, 6, 6), make_block(f"aifi[{variant}]", settings)
    state = state_of(block.module(feature))
    for ours, theirs in renamed.items():
        state = {key.replace(ours, theirs): value for key, value in state.items()}
    found, arrays = fit(make_block(f"aifi[{variant}]"), feature, state)
    assert {name: found.values[name] for name in settings} == settings
    assert set(arrays) == set(block.parameters(feature))


def test_training() -> None:
    assert_trains(AdditiveAIFI(8, 6), 8)
    assert_trains(HiLoAIFI(8, 6, 4, qkv_bias=True), 8)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="heads that divide its channels, got 3 for 8"):
        HiLoAIFI(8, heads=3)
    with pytest.raises(ValueError, match=r"an alpha from 0 to 1, got 2 and 1\.5"):
        HiLoAIFI(8, alpha=1.5)
    with pytest.raises(ValueError, match="at least one channel"):
        AdditiveAIFI(0)
    with pytest.raises(ValueError, match="hidden width of at least 1"):
        AdditiveAIFI(8, 0)
    with pytest.raises(BlockError, match=r"alpha of aifi is at most 1, not 1\.5"):
        make_block("aifi[hilo]", {"alpha": 1.5}).check(FeatureMap(64, 20, 20))
    with pytest.raises(BlockError, match="hilo cuts the map into windows"):
        make_block("aifi[hilo]").check(FeatureMap(64, None, 20))
