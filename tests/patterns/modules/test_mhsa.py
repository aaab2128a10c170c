"""MHSA against its formulas, one query at a time. timm's module: see the template's tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.mhsa import BottleneckAttention, LucidrainsAttention, YoloMHSA
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, pointwise, softmax

SIZE = (3, 5)


def attended(q: Array, k: Array, v: Array, energy: Array) -> Array:
    """q, k, v [N, heads, d, HW]; energy [N, heads, HW, HW] -> [N, C, H, W]."""
    o = np.zeros_like(v)
    for image, head, query in np.ndindex(*energy.shape[:3]):
        o[image, head, :, query] = v[image, head] @ softmax(energy[image, head, query], 0)
    return o.reshape(o.shape[0], -1, *SIZE)


@pytest.mark.parametrize(("bias", "scaled", "key_dim"), [(False, False, None), (True, False, 5), (False, True, None)])
def test_botnet_agrees_with_the_formula(bias: bool, scaled: bool, key_dim: int | None) -> None:
    module = randomised(BottleneckAttention(8, SIZE, 2, key_dim, bias, scaled), 1.0)
    state = state_of(module)
    d, n = key_dim or 4, SIZE[0] * SIZE[1]
    x = np.random.default_rng(1).standard_normal((2, 8, *SIZE))
    q, k, v = (part.reshape(2, 2, -1, n) for part in np.split(pointwise(x, state, "qkv"), [2 * d, 4 * d], axis=1))
    energy = np.zeros((2, 2, n, n))
    for i, j in np.ndindex(n, n):
        (yi, xi), (yj, xj) = divmod(i, SIZE[1]), divmod(j, SIZE[1])
        offset = (
            state["pos_embed.height_rel"][yj - yi + SIZE[0] - 1] + state["pos_embed.width_rel"][xj - xi + SIZE[1] - 1]
        )
        content, position = (q[..., i] * k[..., j]).sum(-1), (q[..., i] * offset).sum(-1)
        energy[..., i, j] = (content + position) / np.sqrt(d) if scaled else content / np.sqrt(d) + position
    np.testing.assert_allclose(run(module, x), attended(q, k, v, energy), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("positions", ["absolute", "relative"])
def test_lucidrains_agrees_with_the_formula(positions: str) -> None:
    """The position term is that of the key, or of its offset, and scaled as the logits are."""
    module = randomised(LucidrainsAttention(8, SIZE, 2, positions), 1.0)
    state = state_of(module)
    n = SIZE[0] * SIZE[1]
    x = np.random.default_rng(1).standard_normal((2, 8, *SIZE))
    q, k, v = (part.reshape(2, 2, 4, n) for part in np.split(pointwise(x, state, "to_qkv"), 3, axis=1))
    energy = np.zeros((2, 2, n, n))
    for i, j in np.ndindex(n, n):
        (yi, xi), (yj, xj) = divmod(i, SIZE[1]), divmod(j, SIZE[1])
        if positions == "absolute":
            place = state["pos_emb.height"][yj] + state["pos_emb.width"][xj]
        else:
            place = (
                state["pos_emb.rel_height"][yj - yi + SIZE[0] - 1] + state["pos_emb.rel_width"][xj - xi + SIZE[1] - 1]
            )
        energy[..., i, j] = (q[..., i] * (k[..., j] + place)).sum(-1) / 2
    np.testing.assert_allclose(run(module, x), attended(q, k, v, energy), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("positions", [False, True])
def test_yolo_agrees_with_the_formula(positions: bool) -> None:
    """Not scaled; the position of the query times the query of the key's place."""
    module = randomised(YoloMHSA(8, 2, SIZE if positions else None), 1.0)
    state = state_of(module)
    n = SIZE[0] * SIZE[1]
    x = np.random.default_rng(1).standard_normal((2, 8, *SIZE))
    q, k, v = (pointwise(x, state, name).reshape(2, 2, 4, n) for name in ("query", "key", "value"))
    energy = np.einsum("bhdi,bhdj->bhij", q, k)
    for i in range(n) if positions else ():
        y, column = divmod(i, SIZE[1])
        place = state["rel_w_weight"][0, :, :, y, 0] + state["rel_h_weight"][0, :, :, 0, column]
        energy[:, :, i] += np.einsum("hd,bhdj->bhj", place, q)
    np.testing.assert_allclose(run(module, x), attended(q, k, v, energy), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "module", [BottleneckAttention(8, SIZE, 2), YoloMHSA(8, 2, SIZE), LucidrainsAttention(8, SIZE, 2)]
)
def test_training_and_another_size(module: torch.nn.Module) -> None:
    assert_trains(module, 8, SIZE)
    with pytest.raises(ValueError, match="made for maps of 3x5, got 5x3"):
        module(torch.zeros(1, 8, 5, 3, dtype=torch.float64))


def test_heads_that_do_not_divide_are_refused() -> None:
    makers = (
        lambda: BottleneckAttention(8, SIZE, 3),
        lambda: YoloMHSA(8, 3),
        lambda: LucidrainsAttention(8, SIZE, 3),
    )
    for make in makers:
        with pytest.raises(ValueError, match="heads that divide its channels, got 3 for 8"):
            make()


def test_positions_are_absolute_or_relative() -> None:
    with pytest.raises(ValueError, match="absolute and relative positions, not 'none'"):
        LucidrainsAttention(8, SIZE, 2, "none")
