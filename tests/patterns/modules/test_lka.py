"""LKA against its formula, one tap of a kernel at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.patterns.modules.lka import LKA, Attention, DeformableAttention, DeformableLKA
from graphsurgery.userblocks import make_block
from tests.patterns.attention.harness import build, feature_map
from tests.patterns.modules.checks import assert_trains, randomised, run, shapes, state_of
from tests.patterns.modules.layers import Array, State, depthwise, gelu, pointwise


def unit(x: Array, given: State, prefix: str = "") -> Array:
    far = depthwise(depthwise(x, given, f"{prefix}conv0"), given, f"{prefix}conv_spatial", 3)
    return x * pointwise(far, given, f"{prefix}conv1")


@pytest.mark.parametrize("size", [(7, 7), (5, 23)])
def test_agrees_with_the_formula(size: tuple[int, int]) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, *size))
    alone, wrapped = randomised(LKA(3)), randomised(Attention(3))
    np.testing.assert_allclose(run(alone, x), unit(x, state_of(alone)), rtol=1e-11, atol=1e-12)
    given = state_of(wrapped)
    inner = unit(gelu(pointwise(x, given, "proj_1")), given, "spatial_gating_unit.")
    np.testing.assert_allclose(run(wrapped, x), x + pointwise(inner, given, "proj_2"), rtol=1e-11, atol=1e-12)


def read(x: Array, row: float, column: float) -> Array:
    """x [C, H, W] between its positions, 0 outside of the map."""
    found, top, left = np.zeros(len(x)), math.floor(row), math.floor(column)
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
            found += (1 - abs(row - i)) * (1 - abs(column - j)) * x[:, i, j]
    return found


def dense(x: Array, given: State, name: str, dilation: int) -> Array:
    """A convolution that keeps the size, one tap at a time."""
    weight = given[f"{name}.weight"]
    side, (height, width) = weight.shape[2], x.shape[2:]
    border = dilation * (side // 2)
    padded = np.pad(x, ((0, 0), (0, 0), (border, border), (border, border)))
    y = np.zeros((len(x), len(weight), height, width)) + given[f"{name}.bias"].reshape(1, -1, 1, 1)
    for i, j in np.ndindex(side, side):
        part = padded[:, :, i * dilation : i * dilation + height, j * dilation : j * dilation + width]
        y += np.einsum("oc,nchw->nohw", weight[:, :, i, j], part)
    return y


def deformed(x: Array, given: State, name: str, dilation: int = 1) -> Array:
    moves, weight = dense(x, given, f"{name}.offset_net", dilation), given[f"{name}.deform_conv.weight"][:, 0]
    y, side = np.zeros_like(x), weight.shape[1]
    for image, row, column, i, j in np.ndindex(len(x), *x.shape[2:], side, side):
        down, right = moves[image, 2 * (i * side + j) : 2 * (i * side + j) + 2, row, column]
        at = row + dilation * (i - side // 2) + down, column + dilation * (j - side // 2) + right
        y[image, :, row, column] += weight[:, i, j] * read(x[image], *at)
    return y


def deformable(x: Array, given: State, prefix: str = "") -> Array:
    near = deformed(x, given, f"{prefix}conv0")
    return x * pointwise(deformed(near, given, f"{prefix}conv_spatial", 3), given, f"{prefix}conv1")


@pytest.mark.parametrize("size", [(4, 4), (3, 7), (1, 2)])
def test_deformable_agrees_with_the_formula(size: tuple[int, int]) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, *size))
    alone, wrapped = randomised(DeformableLKA(3), 1.5), randomised(DeformableAttention(3), 1.5)
    np.testing.assert_allclose(run(alone, x), deformable(x, state_of(alone)), rtol=1e-10, atol=1e-11)
    given = state_of(wrapped)
    inner = deformable(gelu(pointwise(x, given, "proj_1")), given, "spatial_gating_unit.")
    np.testing.assert_allclose(run(wrapped, x), x + pointwise(inner, given, "proj_2"), rtol=1e-10, atol=1e-11)


def test_the_keys_of_the_deformable_authors() -> None:
    found = shapes(DeformableLKA(4))
    layers = {f"{name}.offset_net.{part}" for name in ("conv0", "conv_spatial") for part in ("weight", "bias")}
    layers |= {"conv0.deform_conv.weight", "conv_spatial.deform_conv.weight", "conv1.weight", "conv1.bias"}
    assert set(found) == layers
    assert found["conv_spatial.offset_net.weight"] == (98, 4, 7, 7)
    assert found["conv0.deform_conv.weight"] == (4, 1, 5, 5)
    outer = {f"proj_{number}.{part}" for number in (1, 2) for part in ("weight", "bias")}
    assert set(shapes(DeformableAttention(4))) == outer | {f"spatial_gating_unit.{key}" for key in layers}


@pytest.mark.parametrize(
    ("opset", "target", "operator"),
    [(19, "onnxruntime", "DeformConv"), (19, "tensorrt", "GridSample"), (16, "onnxruntime", "GridSample")],
)
def test_deformable_is_written_with_an_operator_that_reads_between_positions(
    opset: int, target: str, operator: str
) -> None:
    operators = build("lka[deformable]", feature=feature_map(4, 7, 8), opset=opset, target=target).operators
    assert operators.count(operator) == 2
    assert not ({"DeformConv", "GridSample"} - {operator}) & set(operators)


def test_where_deformable_does_not_go() -> None:
    with pytest.raises(BlockError, match=r"a matrix of 0\.8 GB .* opset 13; export it with opset 16 or later"):
        build("lka[deformable]", feature=feature_map(4, 80, 80), opset=13)
    with pytest.raises(BlockError, match="reads the map between its positions"):
        make_block("lka[deformable]").check(FeatureMap(64, None, 20))


def test_kernels_are_the_published_ones() -> None:
    module = LKA(4)
    assert (module.conv0.kernel_size, module.conv0.padding, module.conv0.groups) == ((5, 5), (2, 2), 4)
    far = module.conv_spatial
    assert (far.kernel_size, far.padding, far.dilation, far.groups) == ((7, 7), (9, 9), (3, 3), 4)


def test_identity() -> None:
    module = LKA(4)
    torch.nn.init.zeros_(module.conv1.weight)
    torch.nn.init.ones_(module.conv1.bias)
    x = 20 * torch.randn(2, 4, 9, 8)
    assert torch.equal(module(x), x)


def test_training() -> None:
    assert_trains(LKA(4), 4, (9, 8))
    assert_trains(Attention(4), 4, (9, 8))
    assert_trains(DeformableLKA(4), 4, (9, 8))


def test_no_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one channel"):
        LKA(0)
    with pytest.raises(ValueError, match="at least one channel"):
        DeformableLKA(0)
