"""The formula of the calibrated start: moments over several maps, and what to do where there is no number."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.blocks.calibration import Moments, lost, scale_and_shift
from graphsurgery.errors import RequestError


def moments(*maps: np.ndarray) -> Moments:
    found = Moments()
    for each in maps:
        found.add(Moments.of(each))
    return found


def test_moments_are_those_of_all_maps_together() -> None:
    rng = np.random.default_rng(0)
    maps = [
        (rng.standard_normal(shape) * size + size).astype(np.float32)
        for shape, size in (((1, 3, 4, 5), 1.0), ((2, 3, 2, 2), 30.0), ((1, 3, 9, 1), 0.01))
    ]
    found = moments(*maps)
    every = np.concatenate([each.transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64) for each in maps], 1)
    assert found.count == every.shape[1]
    assert np.allclose(found.mean, every.mean(1), rtol=1e-12)
    assert np.allclose(found.deviation, every.std(1), rtol=1e-12)


def test_a_channel_gets_the_mean_and_the_deviation_back() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 4, 8, 8)) * [[[[1.0]], [[2.0]], [[3.0]], [[1e-3]]]] + 5.0
    y = 0.1 * x * np.abs(x)
    scale, shift = scale_and_shift(moments(x), moments(y), "id")
    assert scale.dtype == shift.dtype == np.float32
    found = moments(scale.reshape(1, -1, 1, 1) * y + shift.reshape(1, -1, 1, 1))
    assert np.allclose(found.mean, moments(x).mean, rtol=1e-5)
    assert np.allclose(found.deviation, moments(x).deviation, rtol=1e-5)


@pytest.mark.parametrize("side", ["before", "after", "both"])
def test_a_constant_channel_is_moved_and_not_scaled(side: str) -> None:
    """One that is far from 0 while the others hardly vary, too: sums of squares would give it a deviation."""
    rng = np.random.default_rng(2)
    varying = (rng.standard_normal((1, 2, 16, 16)) * 1e-3).astype(np.float32)
    constant = varying.copy()
    constant[:, 1] = np.float32(1234.567)
    constant[:, 1, ::2] = np.nextafter(np.float32(1234.567), np.float32(0))  # as rounding leaves it
    before = moments(constant if side != "after" else varying, constant if side != "after" else varying)
    after = moments(constant if side != "before" else varying, constant if side != "before" else varying)
    scale, shift = scale_and_shift(before, after, "id")
    assert scale[1] == 1
    assert shift[1] == np.float32(before.mean[1] - after.mean[1])
    assert scale[0] == 1, "what did not change keeps its scale"


def test_channels_of_which_the_block_leaves_nothing_are_told() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 4, 8, 8))
    x[:, 3] = 2.0
    y = x * [[[[1.0]], [[0.0]], [[0.0]], [[0.0]]]]
    (message,) = lost(moments(x), moments(y))
    assert message.startswith("on the images, 2 of the block's 4 channels say nothing: ")
    assert lost(moments(x), moments(2 * x)) == ()


def test_maps_that_are_constant_throughout() -> None:
    scale, shift = scale_and_shift(moments(np.full((1, 2, 3, 3), 4.0)), moments(np.zeros((1, 2, 3, 3))), "id")
    assert scale.tolist() == [1, 1]
    assert shift.tolist() == [4, 4]


def test_values_that_are_not_finite_are_refused() -> None:
    fine, bad = np.arange(18.0).reshape(1, 2, 3, 3), np.full((1, 2, 3, 3), np.inf)
    with pytest.raises(RequestError, match=r"^m\.se gives values on the images that are not finite$"):
        scale_and_shift(moments(fine), moments(bad), "m.se")
    with pytest.raises(RequestError, match=r"not finite, since what arrives there has some as well$"):
        scale_and_shift(moments(bad), moments(bad), "m.se")
