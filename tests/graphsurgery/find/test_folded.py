"""folded: parameters are found that give back a tensor that was made of several of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphsurgery as gsx
from graphsurgery.blocks.registry import catalogue_block
from graphsurgery.feature_map import FeatureMap
from graphsurgery.find import find
from graphsurgery.find.folded import Folded
from graphsurgery.find.tracing import trace
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.rewriting import rewrite
from tests.find.recovery import exported, trained

RNG = np.random.default_rng(0)
MAP = FeatureMap(32, 8, 12, batch=1)


def tables() -> tuple[Tensor, dict[int, Tensor]]:
    """Rows [3, 2] and columns [5, 2] added for each of 15 positions, with 1 added to all."""
    rows, columns = (torch.tensor(RNG.random((size, 2)), requires_grad=True) for size in (3, 5))
    whole = (rows[:, None] + columns[None]).reshape(-1, 2) + 1
    return whole, {0: rows, 6: columns}


def test_any_parameters_that_give_the_tensor_will_do() -> None:
    whole, parameters = tables()
    rows, columns = RNG.random((3, 2)), RNG.random((5, 2))
    wanted = (rows[:, None] + columns[None]).reshape(-1, 2) + 1
    solved = Folded(whole, parameters).solve(wanted)
    assert solved is not None
    places, elements = solved
    assert places.tolist() == [*range(16)]
    again = (elements[:6].reshape(3, 1, 2) + elements[6:].reshape(1, 5, 2)).reshape(-1, 2) + 1
    np.testing.assert_allclose(again, wanted, rtol=1e-9)


def test_what_no_parameters_give_is_none() -> None:
    whole, parameters = tables()
    assert Folded(whole, parameters).solve(RNG.random((15, 2))) is None


@pytest.mark.parametrize(
    ("function", "is_affine"),
    [
        pytest.param(lambda p, q: 2 * p - q + 3, True, id="a sum"),
        pytest.param(lambda p, q: p * q, False, id="a product"),
        pytest.param(lambda p, q: p.exp() + q, False, id="with a function of one"),
    ],
)
def test_only_what_is_affine_is_solved(function: Callable[[Tensor, Tensor], Tensor], is_affine: bool) -> None:
    first, second = (torch.tensor(RNG.random(4), requires_grad=True) for _ in range(2))
    numbers = RNG.random(8)
    values = function(*map(torch.from_numpy, (numbers[:4], numbers[4:]))).numpy()
    assert Folded(function(first, second), {0: first, 4: second}).gives(numbers, values) == is_affine


def test_a_module_without_such_tensors_has_nothing_to_solve() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items() if value.dim()}
    assert not trace(module, shapes, (1, 4, 8, 8)).solves


class Shifted(nn.Module):
    """A map with the sum of one number for all and one for each channel added, and a matrix after them."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.each = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(4, 1, 1))
        self.conv = nn.Conv2d(4, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x + (self.all + self.each))
        return y


def test_a_sum_of_elements_is_not_taken_for_others() -> None:
    """The sum of the numbers of two of the first elements is not the number of one after them."""
    module = Shifted()
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    shift, matrix = (step.uses[0] for step in trace(module, shapes, (1, 4, 8, 8)).steps)
    assert shift.solve is not None
    assert matrix.solve is None


@pytest.mark.parametrize(
    ("spelled", "settings"),
    [
        ("mhsa[lucidrains]", {"heads": 2}),
        ("mhsa[yolo]", {"heads": 2, "pos_emb": True}),
        ("acmix", {"heads": 2, "kernel": 5}),
    ],
)
def test_positions_that_an_exporter_folded(spelled: str, settings: dict[str, int]) -> None:
    """On a map that is not square, rewritten, verified, and taken back."""
    block = catalogue_block(spelled, settings)
    model = ModelFile.load(exported(trained(block, MAP), "torchscript", MAP))
    (found,) = find(model)
    assert found.proven
    assert found.block is not None
    assert (found.block.spelled, found.block.values) == (spelled, block.values)
    done = rewrite(model, force_form=True)
    assert len(done.rewritten) == 1
    assert gsx.verify(done.model, providers="cpu").passed
    assert gsx.remove(done.model).to_bytes() == model.to_bytes()
