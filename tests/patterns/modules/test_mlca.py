"""MLCA against its formula in numpy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.mlca import MixedLocalChannelAttention
from tests.patterns.modules.checks import assert_trains, randomised, scale, shapes, state_of
from tests.patterns.modules.layers import Array, State, sigmoid


def adaptive(x: Array, height: int, width: int) -> Array:
    """Adaptive average pooling, cell by cell."""
    y = np.empty((*x.shape[:2], height, width))
    for i, j in np.ndindex(height, width):
        top, bottom = i * x.shape[2] // height, -(-(i + 1) * x.shape[2] // height)
        left, right = j * x.shape[3] // width, -(-(j + 1) * x.shape[3] // width)
        y[:, :, i, j] = x[:, :, top:bottom, left:right].mean((2, 3))
    return y


def naive(x: Array, given: State, size: int, share: float) -> Array:
    def along(sequence: Array, layer: str) -> Array:
        return sigmoid(np.convolve(sequence, given[f"{layer}.weight"].reshape(-1)[::-1], mode="same"))

    cells, gate = adaptive(x, size, size), np.empty((*x.shape[:2], size, size))
    for n in range(x.shape[0]):
        local = along(cells[n].reshape(x.shape[1], -1).T.reshape(-1), "conv_local")
        whole = along(cells[n].mean((1, 2)), "conv")
        local = local.reshape(size * size, -1).T.reshape(cells[n].shape)
        gate[n] = share * local + (1 - share) * whole[:, None, None]
    return x * adaptive(gate, *x.shape[2:])


@pytest.mark.parametrize("map_size", [(10, 15), (13, 7), (3, 22)])
@pytest.mark.parametrize(("kernel", "size", "share"), [(3, 5, 0.5), (5, 3, 0.2), (1, 2, 1.0)])
def test_agrees_with_the_formula(map_size: tuple[int, int], kernel: int, size: int, share: float) -> None:
    module = randomised(MixedLocalChannelAttention(kernel, size, share))
    x = np.random.default_rng(1).standard_normal((3, 7, *map_size)) * 2
    expected = naive(x, state_of(module), size, share)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


def test_an_image_has_its_own_gate_in_a_batch() -> None:
    module = MixedLocalChannelAttention(3).eval()
    x = torch.randn(3, 8, 10, 10)
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


def test_keys_and_shapes() -> None:
    assert shapes(MixedLocalChannelAttention(5)) == {"conv.weight": (1, 1, 5), "conv_local.weight": (1, 1, 5)}


def test_trains_and_starts_at_a_half() -> None:
    assert_trains(MixedLocalChannelAttention(3), 8)
    assert 0.4 < scale(MixedLocalChannelAttention(5), 128) < 0.6


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="odd kernels, not 2"):
        MixedLocalChannelAttention(2)


@pytest.mark.parametrize("map_size", [(13, 7), (20, 20)])
def test_it_can_be_exported_at_any_size(map_size: tuple[int, int]) -> None:
    """Traced, both poolings are products: exporters know adaptive pooling only where the sizes divide each other."""
    module = MixedLocalChannelAttention(3).eval()
    x = torch.randn(1, 6, *map_size)
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(module, x, check_trace=False)
    assert "adaptive_avg_pool" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), module(x))
