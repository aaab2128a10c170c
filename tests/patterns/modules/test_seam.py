"""SEAM and MultiSEAM against their formulas, patch after patch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.patterns.modules.seam import SEAM, MultiSEAM
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, depthwise, gelu, pointwise, sigmoid


def mixed(x: Array, given: State, prefix: str, eps: float) -> Array:
    near = batch_norm(gelu(depthwise(x, given, f"{prefix}.0.fn.0")), given, f"{prefix}.0.fn.2", eps)
    return batch_norm(gelu(pointwise(near + x, given, f"{prefix}.1")), given, f"{prefix}.3", eps)


def gated(x: Array, means: Array, given: State) -> Array:
    logits = np.maximum(means @ given["fc.0.weight"].T, 0) @ given["fc.2.weight"].T
    return x * np.exp(sigmoid(logits))[:, :, None, None]


@pytest.mark.parametrize("depth", [1, 2])
def test_single(depth: int) -> None:
    module, eps = randomised(SEAM(4, 2, depth, bn_eps=0.1)), 0.1
    given = state_of(module)
    z = x = np.random.default_rng(1).standard_normal((2, 4, 5, 7))
    for number in range(depth):
        z = mixed(z, given, f"DCovN.{number}", eps)
    np.testing.assert_allclose(run(module, x), gated(x, z.mean((2, 3)), given), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(7, 7), (11, 16)])
def test_multi_sees_whole_patches(size: tuple[int, int]) -> None:
    module, eps = randomised(MultiSEAM(4, 2, bn_eps=0.1)), 0.1
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 4, *size))
    means = [x.mean((2, 3))]
    for number, side in enumerate((3, 5, 7)):
        rows, columns = size[0] // side, size[1] // side
        weight, bias = given[f"DCovN{number}.0.weight"], given[f"DCovN{number}.0.bias"]
        z = np.zeros((2, 4, rows, columns))
        for row, column in np.ndindex(rows, columns):
            patch = x[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            z[:, :, row, column] = np.einsum("oiab,niab->no", weight, patch) + bias
        z = mixed(batch_norm(gelu(z), given, f"DCovN{number}.2", eps), given, f"DCovN{number}.3", eps)
        means.append(z.mean((2, 3)))
    np.testing.assert_allclose(run(module, x), gated(x, np.mean(means, 0), given), rtol=1e-10, atol=1e-12)


def test_the_gate_only_enhances() -> None:
    x = torch.randn(2, 8, 9, 8)
    for module in (SEAM(8, 4).eval(), MultiSEAM(8, 4).eval()):
        ratio = module(x) / x
        assert 1 <= ratio.min() <= ratio.max() <= float(np.e)


def test_identity() -> None:
    module = SEAM(8, 2, depth=2).eval()
    nn.init.zeros_(module.DCovN[1][3].weight)
    nn.init.ones_(module.DCovN[1][3].bias)
    nn.init.constant_(module.fc[0].weight, 1 / 8)
    nn.init.constant_(module.fc[2].weight, -80.0)
    x = 20 * torch.randn(2, 8, 9, 8)
    assert torch.equal(module(x), x)


def test_training() -> None:
    assert_trains(SEAM(8, 4), 8)
    assert_trains(MultiSEAM(8, 4), 8, (14, 15))


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="depth of at least 1"):
        SEAM(8, 2, depth=0)
    with pytest.raises(ValueError, match="patches of three sizes"):
        MultiSEAM(8, 2, patches=(3, 5))
    with pytest.raises(ValueError, match="patches of 7, and the map is 6x9"):
        MultiSEAM(8, 2)(torch.zeros(1, 8, 6, 9))
