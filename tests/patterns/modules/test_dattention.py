"""DAttention against its formula, one query and one point at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from graphsurgery.patterns.modules.dattention import DAttention
from tests.patterns.modules.checks import assert_trains, randomised, run, shapes, state_of
from tests.patterns.modules.layers import Array, State, depthwise, gelu, layer_norm, pointwise, softmax


def sampled(x: Array, y: float, along: float) -> Array:
    """x [C, H, W] at a place in positions, bilinear, 0 outside of the map."""
    found = np.zeros(len(x))
    top, left = math.floor(y), math.floor(along)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            found += (1 - abs(y - row)) * (1 - abs(along - column)) * x[:, row, column]
    return found


def strided(x: Array, given: State, kernel: int, stride: int) -> Array:
    """The depthwise convolution of the offsets."""
    border = kernel // 2 if kernel != stride else 0
    x = np.pad(x, ((0, 0), (0, 0), (border, border), (border, border)))
    weight, bias = given["conv_offset.0.weight"][:, 0], given["conv_offset.0.bias"]
    rows, columns = ((side - kernel) // stride + 1 for side in x.shape[2:])
    y = np.zeros((*x.shape[:2], rows, columns))
    for row, column in np.ndindex(rows, columns):
        window = x[:, :, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
        y[:, :, row, column] = (window * weight).sum((2, 3)) + bias
    return y


def points(q: Array, given: State, module: DAttention) -> Array:
    """[N, 2, rows, columns] for the q of one group, from -1 to 1."""
    hidden = strided(q, given, module.kernel, module.stride)
    norm = (given[f"conv_offset.1.norm.{part}"] for part in ("weight", "bias"))
    offset = pointwise(gelu(layer_norm(hidden, *norm, 1)), given, "conv_offset.3")
    sides = np.array(offset.shape[2:]) - 1.0
    for row, column in np.ndindex(*offset.shape[2:]):
        own = (np.array([row, column]) + 0.5) / sides * 2 - 1
        free = offset[:, :, row, column]
        if module.offset_range < 0:
            offset[:, :, row, column] = np.clip(own + free, -1, 1)
        else:
            offset[:, :, row, column] = own + np.tanh(free) * module.offset_range / sides
    return offset


def formula(x: Array, module: DAttention) -> Array:
    given, (height, width) = state_of(module), x.shape[2:]
    q, groups, heads = pointwise(x, given, "proj_q"), module.groups, module.heads
    moved = [points(part, given, module) for part in np.split(q, groups, axis=1)]
    places = [each.reshape(len(x), 2, -1) for each in moved]
    z = np.zeros((*x.shape[:2], 1, places[0].shape[2]))
    sides = np.array([height, width]) - 1.0
    for image, group, point in np.ndindex(len(x), groups, z.shape[3]):
        place = (places[group][image, :, point] + 1) / 2 * sides
        part = np.split(x[image], groups)[group]
        z[image, group * len(part) : (group + 1) * len(part), 0, point] = sampled(part, *place)
    k, v, d = pointwise(z, given, "proj_k"), pointwise(z, given, "proj_v"), x.shape[1] // heads
    a = depthwise(q, given, "rpe_table") if module.variant == "dwc" else np.zeros_like(q)
    for image, head, row, column in np.ndindex(len(x), heads, height, width):
        part = slice(head * d, (head + 1) * d)
        logits = q[image, part, row, column] @ k[image, part, 0] / math.sqrt(d)
        if module.variant == "table":
            own = np.array([row, column]) / sides * 2 - 1
            for point, place in enumerate(places[head * groups // heads][image].T):
                table = given["rpe_table"][head : head + 1]
                logits[point] += sampled(table, *(((own - place) / 2 + 1) * sides))[0]
        a[image, part, row, column] += v[image, part, 0] @ softmax(logits, 0)
    return pointwise(a, given, "proj_out")


@pytest.mark.parametrize(("stride", "kernel", "reach"), [(1, 3, 4.0), (2, 2, -1.0), (2, 5, 0.0), (3, 4, 2.5)], ids=str)
@pytest.mark.parametrize("variant", ["dwc", "table"])
def test_agrees_with_the_formula(variant: str, stride: int, kernel: int, reach: float) -> None:
    module = randomised(DAttention(8, variant, (6, 7), 4, 2, stride, kernel, reach))
    x = np.random.default_rng(1).standard_normal((2, 8, 6, 7))
    np.testing.assert_allclose(run(module, x), formula(x, module), rtol=1e-10, atol=1e-11)


def test_the_keys_of_the_authors() -> None:
    layers = {f"proj_{name}.{part}" for name in ("q", "k", "v", "out") for part in ("weight", "bias")}
    layers |= {f"conv_offset.{name}" for name in ("0.weight", "0.bias", "1.norm.weight", "1.norm.bias", "3.weight")}
    found = shapes(DAttention(16))
    assert set(found) == layers | {"rpe_table.weight", "rpe_table.bias"}
    assert found["conv_offset.0.weight"] == (4, 1, 3, 3)
    assert found["conv_offset.3.weight"] == (2, 4, 1, 1)
    found = shapes(DAttention(16, "table", (5, 9)))
    assert set(found) == layers | {"rpe_table"}
    assert found["rpe_table"] == (8, 9, 17)


@pytest.mark.parametrize("variant", ["dwc", "table"])
def test_training(variant: str) -> None:
    assert_trains(DAttention(8, variant, (8, 9), 4, 2), 8)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads that divide its channels, got 3 for 8"):
        DAttention(8, heads=3)
    with pytest.raises(ValueError, match=r"groups that divide its heads.*got 3 for 4"):
        DAttention(8, heads=4, groups=3)
    with pytest.raises(ValueError, match="needs the size of the map"):
        DAttention(8, "table")
    with pytest.raises(ValueError, match="maps of 8x9, got 9x8"):
        DAttention(8, "table", (8, 9))(torch.zeros(1, 8, 9, 8))
    with pytest.raises(ValueError, match="two points along each side of the map, got 1x9"):
        DAttention(8)(torch.zeros(1, 8, 1, 9))
