"""aligning: which constants of a part can be which parameters of a module."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn

from graphsurgery.feature_map import Array
from graphsurgery.find.aligning import weights
from graphsurgery.find.tracing import Trace, trace
from graphsurgery.find.uses import Role, Use, as_it_is

RNG = np.random.default_rng(0)
CHANNELS = 4
SIZE = (1, CHANNELS, 6, 6)


def traced(module: nn.Module) -> Trace:
    return trace(module, {key: tuple(value.shape) for key, value in module.state_dict().items()}, SIZE)


def convolution(name: str, operation: int, *, behind: tuple[int, ...] = ()) -> Use:
    """A 1x1 convolution in a part, which depends on these operations."""
    values = RNG.standard_normal((CHANNELS, CHANNELS, 1, 1))
    upstream = sum(1 << each for each in behind)
    return Use(Role.MATRIX, values.shape, partial(as_it_is, values), name, operation=operation, upstream=upstream)


def vector(values: Array, operation: int) -> Use:
    return Use(Role.SCALE, values.shape, partial(as_it_is, values), f"vector {operation}", operation=operation)


def two_in_a_row() -> nn.Module:
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False), nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False))


def test_what_comes_after_stays_after() -> None:
    """Both orders are tried where nothing says which convolution is behind the other, one where the graph does."""
    loose = [convolution("a", 0), convolution("b", 1)]
    chained = [convolution("a", 0), convolution("b", 1, behind=(0,))]
    assert len(list(weights(traced(two_in_a_row()), loose, 1e-5, 0))) == 2
    (only,) = weights(traced(two_in_a_row()), chained, 1e-5, 0)
    np.testing.assert_array_equal(only["0.weight"], chained[0].values())
    np.testing.assert_array_equal(only["1.weight"], chained[1].values())


def test_a_file_whose_nodes_are_sorted_otherwise() -> None:
    """The list may be in any order: what depends on what is not told by it."""
    sorted_otherwise = [convolution("b", 1, behind=(0,)), convolution("a", 0)]
    (only,) = weights(traced(two_in_a_row()), sorted_otherwise, 1e-5, 0)
    np.testing.assert_array_equal(only["0.weight"], sorted_otherwise[1].values())


def test_branches_may_change_places() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = two_in_a_row()  # type: ignore[misc]

        def forward(self, x: object) -> object:
            return self.first(x) + self.second(x)

    uses = [convolution("a", 0), convolution("b", 1)]
    assert len(list(weights(traced(Branches()), uses, 1e-5, 0))) == 2


def test_what_was_learned_and_is_left_out_is_tried_once() -> None:
    """A module with one norm, a part with two: which of them is the module's is not tried again and again."""
    module = nn.Sequential(nn.GroupNorm(1, CHANNELS), nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False))
    learned = [vector(RNG.standard_normal(CHANNELS), n) for n in range(2)]
    shifts = [
        Use(Role.SHIFT, (CHANNELS,), partial(as_it_is, np.zeros(CHANNELS)), f"shift {n}", operation=n) for n in range(2)
    ]
    norms = [each for pair in zip(learned, shifts, strict=True) for each in pair]
    assert len(list(weights(traced(module), [*norms, convolution("a", 2)], 1e-5, 0))) == 1
    same = [vector(np.ones(CHANNELS), 0), shifts[0], vector(np.ones(CHANNELS), 1), shifts[1], convolution("a", 2)]
    assert len(list(weights(traced(module), same, 1e-5, 0))) > 1


def test_a_bias_of_zeros_may_have_been_taken_out() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Linear(CHANNELS, CHANNELS, bias=False) for _ in range(2))
            self.bias = nn.Parameter(torch.zeros(CHANNELS))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            after: torch.Tensor = self.second(self.first(x.permute(0, 2, 3, 1)) + self.bias)
            return after

    uses = [convolution("a", 0), convolution("b", 1, behind=(0,))]
    (only,) = weights(traced(Apart()), uses, 1e-5, 0)
    assert only["bias"].tolist() == [0.0] * CHANNELS
