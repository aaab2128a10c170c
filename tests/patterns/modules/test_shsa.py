"""SHSA and its block against their formulas, one query at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.shsa import SHSA, SHSABlock
from tests.patterns.modules.checks import assert_trains, randomised, run, state_of
from tests.patterns.modules.layers import Array, State, batch_norm, depthwise, group_norm, pointwise, softmax


def conv_bn(x: Array, given: State, layer: str, eps: float) -> Array:
    return batch_norm(pointwise(x, given, f"{layer}.c"), given, f"{layer}.bn", eps)


def unit(x: Array, given: State, part: int, width: int, eps: float, prefix: str = "") -> Array:
    normal = group_norm(x[:, :part], 1, given, f"{prefix}pre_norm")
    qkv = conv_bn(normal, given, f"{prefix}qkv", eps).reshape(x.shape[0], -1, x.shape[2] * x.shape[3])
    z = x.copy()
    for image in range(x.shape[0]):
        q, k, v = np.split(qkv[image], [width, 2 * width])
        for query in range(q.shape[1]):
            row, column = divmod(query, x.shape[3])
            z[image, :part, row, column] = v @ softmax(q[:, query] @ k / np.sqrt(width), 0)
    return conv_bn(np.maximum(z, 0), given, f"{prefix}proj.1", eps)


def test_the_unit() -> None:
    module, eps = randomised(SHSA(7, 3, 4, bn_eps=0.1)), 0.1
    x = np.random.default_rng(1).standard_normal((2, 7, 4, 5))
    np.testing.assert_allclose(run(module, x), unit(x, state_of(module), 3, 4, eps), rtol=1e-10, atol=1e-11)


def test_the_block() -> None:
    module, eps = randomised(SHSABlock(7, 3, 4, hidden=5, bn_eps=0.1)), 0.1
    given = state_of(module)
    x = np.random.default_rng(1).standard_normal((2, 7, 4, 5))
    z = x + batch_norm(depthwise(x, given, "conv.m.c"), given, "conv.m.bn", eps)
    z = z + unit(z, given, 3, 4, eps, "mixer.m.")
    y = z + conv_bn(np.maximum(conv_bn(z, given, "ffn.m.pw1", eps), 0), given, "ffn.m.pw2", eps)
    np.testing.assert_allclose(run(module, x), y, rtol=1e-10, atol=1e-11)


def test_it_starts_as_an_identity() -> None:
    x = 20 * torch.randn(2, 8, 9, 8)
    assert torch.equal(SHSABlock(8, 4).eval()(x), x)
    assert not SHSA(8, 4).eval()(x).any()


def test_training() -> None:
    opened = SHSABlock(8, 4)
    for key in ("conv.m.bn.weight", "mixer.m.proj.1.bn.weight", "ffn.m.pw2.bn.weight"):
        torch.nn.init.ones_(opened.get_parameter(key))
    assert_trains(opened, 8)


def test_an_untouched_block_begins_to_learn() -> None:
    """Where a BatchNorm's weight is 0 its own gradient is not, although those of the layers before it are."""
    module = SHSABlock(8, 4)
    module(torch.randn(4, 8, 6, 5)).square().mean().backward()
    for key in ("conv.m.bn.weight", "mixer.m.proj.1.bn.weight", "ffn.m.pw2.bn.weight"):
        gradient = module.get_parameter(key).grad
        assert gradient is not None
        assert gradient.abs().max() > 1e-6, key


@pytest.mark.parametrize("pdim", [0, 8])
def test_widths_that_do_not_fit_are_refused(pdim: int) -> None:
    with pytest.raises(ValueError, match=f"pdim between 0 and its channels .* got {pdim}"):
        SHSA(8, pdim)
