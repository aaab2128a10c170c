from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from graphsurgery.verification.cases import CONSTANTS, MAGNITUDES, cases, concrete_shapes

FLOAT32 = np.dtype(np.float32)


def test_a_static_site_gets_every_seed_at_every_magnitude_and_the_constants() -> None:
    found = list(cases([1, 8, 20, 20], FLOAT32, seeds=3))
    assert len(found) == 3 * len(MAGNITUDES) + len(CONSTANTS)
    assert {case.array.shape for case in found} == {(1, 8, 20, 20)}
    assert len({case.name for case in found}) == len(found)
    spreads = sorted(float(case.array.std()) for case in found)
    assert spreads[1] < 1e-6
    assert 1e-3 / 5 < spreads[2] < 1e-3 / 2
    assert 20 / 5 < spreads[-1] < 20 / 2
    assert max(float(np.abs(case.array).max()) for case in found) == pytest.approx(20, rel=0.1)
    assert any((case.array == 0).all() for case in found)


def test_seeds_differ_and_repeat() -> None:
    first = {case.name: case.array for case in cases([1, 4, 6, 6], FLOAT32)}
    again = {case.name: case.array for case in cases([1, 4, 6, 6], FLOAT32)}
    assert all(np.array_equal(first[name], again[name]) for name in first)
    ones = [array for name, array in first.items() if "magnitude 1," in name]
    assert len(ones) == 3
    assert not np.array_equal(ones[0], ones[1])


def test_channels_have_different_means() -> None:
    array = next(iter(cases([2, 16, 40, 40], FLOAT32))).array
    assert array.mean((2, 3)).std() > 0.2 * array.std()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([1, 4, 20, 20], [(1, 4, 20, 20)]),
        (["batch", 4, 20, 20], [(1, 4, 20, 20), (3, 4, 20, 20)]),
        ([1, 4, None, None], [(1, 4, 20, 20), (1, 4, 13, 21), (1, 4, 40, 28)]),
        (["n", 4, "h", "w"], [(1, 4, 20, 20), (3, 4, 13, 21), (1, 4, 40, 28)]),
        ([2, 4, 16, "w"], [(2, 4, 16, 20), (2, 4, 16, 21), (2, 4, 16, 28)]),
    ],
)
def test_dynamic_sizes_are_tried_at_several_values(
    shape: list[int | str | None], expected: list[tuple[int, int, int, int]]
) -> None:
    assert concrete_shapes(shape) == expected
    found = list(cases(shape, FLOAT32, seeds=2))
    assert {case.array.shape for case in found} == set(expected)
    for one in expected:
        of_it = [case.array for case in found if case.array.shape == one]
        assert len(of_it) >= len(MAGNITUDES) + len(CONSTANTS)


def test_the_element_type_is_the_sites() -> None:
    kind = np.dtype(ml_dtypes.bfloat16)
    assert {case.array.dtype for case in cases([1, 2, 4, 4], kind)} == {kind}


def test_unknown_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels"):
        concrete_shapes([1, "c", 4, 4])
