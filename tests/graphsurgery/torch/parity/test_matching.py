"""Distances between tables of predictions: by quantity, in its unit; of rows that are a set with their partners."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from graphsurgery.torch.parity.layout import Layout, Quantity, Table, Unit, as_rows, transposed
from graphsurgery.torch.parity.matching import Distance, distances

BOXES = Quantity("boxes", Unit.PIXELS, slice(0, 4))
SCORES = Quantity("scores", Unit.SCORES, slice(4, 5))
CLASSES = Quantity("classes", Unit.EXACT, slice(5, 6))
CHOSEN = Layout((Table((0,), (BOXES, SCORES, CLASSES), as_rows, matched=True, ranked=4),), "", ())
DENSE = Layout((Table((0,), (BOXES, SCORES), transposed),), "", ())


def rows(count: int = 20) -> np.ndarray:
    """[1, N, 6]: predictions in the order of their scores."""
    rng = np.random.default_rng(0)
    boxes, classes = rng.random((count, 4)) * 640, rng.integers(0, 80, (count, 1))
    return np.hstack([boxes, np.linspace(0.9, 0.1, count)[:, None], classes])[None]


def compared(actual: np.ndarray, expected: np.ndarray, layout: Layout = CHOSEN) -> dict[str, Distance]:
    return {each.quantity: each for each in distances(layout, [actual], [expected])}


def test_each_quantity_in_its_unit() -> None:
    expected = rows().transpose(0, 2, 1)[:, :5]
    actual = expected.copy()
    actual[0, 2, 7] += 3e-3
    actual[0, 4, 3] += 2e-5
    found = compared(actual, expected, DENSE)
    assert found["boxes"].error == pytest.approx(3e-3)
    assert (found["boxes"].stated, found["boxes"].unit) == (5e-3, "px")
    assert found["scores"].error == pytest.approx(2e-5)
    assert found["scores"].stated == pytest.approx(0.9e-5)


def test_shares_of_the_image_in_pixels() -> None:
    boxes = Quantity("boxes", Unit.PIXELS, slice(0, 4), (640.0, 320.0, 640.0, 320.0))
    layout = Layout((Table((0,), (boxes,), as_rows),), "", ())
    expected = np.zeros((1, 1, 4))
    actual = expected + np.array([1e-3, 0, 0, 3e-3])
    assert compared(actual, expected, layout)["boxes"].error == pytest.approx(0.96)


@pytest.mark.parametrize(("peak", "stated"), [(30.0, 1e-5), (1.0, 1e-5), (0.5, 5e-6), (1e-6, 5e-7)])
def test_small_scores_may_be_off_by_less(peak: float, stated: float) -> None:
    expected = np.zeros((1, 5, 2))
    expected[0, 4, 1] = peak
    assert compared(expected, expected, DENSE)["scores"].stated == pytest.approx(stated)


def test_rows_in_another_order() -> None:
    expected = rows()
    found = compared(expected[:, [1, 0, *range(2, 20)]] + 1e-7, expected)
    assert all(each.error <= 1e-5 for name, each in found.items() if name != "classes")
    assert {each.reordered for each in found.values()} == {2}


def test_a_dense_output_in_another_order_differs() -> None:
    expected = rows().transpose(0, 2, 1)[:, :5]
    assert compared(expected[..., ::-1], expected, DENSE)["boxes"].error > 1


def test_a_row_that_is_another() -> None:
    expected = rows()
    for column, name, change in [(1, "boxes", 0.5), (4, "scores", 0.01), (5, "classes", 1.0)]:
        actual = expected.copy()
        actual[0, 6, column] += change
        found = compared(actual, expected)
        assert found[name].error == pytest.approx(change)
        assert all(each.error <= each.stated for other, each in found.items() if other != name)


def test_the_same_box_of_two_classes() -> None:
    """Partners are told by all their columns together."""
    expected = rows()
    expected[0, 1, :5] = expected[0, 0, :5]
    found = compared(expected[:, [1, 0, *range(2, 20)]], expected)
    assert all(each.error == 0 for each in found.values())


def test_another_row_at_the_cut_off() -> None:
    expected, actual = rows(), rows()
    actual[0, -1] = [1, 2, 3, 4, 0.1, 7]
    found = compared(actual, expected)
    assert all(each.error == 0 for each in found.values())
    assert {each.left_out for each in found.values()} == {1}
    json.dumps([asdict(each) for each in found.values()])


def test_another_row_above_the_cut_off_differs() -> None:
    expected, actual = rows(), rows()
    actual[0, -2] = [1, 2, 3, 4, actual[0, -2, 4], 7]
    assert compared(actual, expected)["boxes"].error > 1


def test_the_only_row_is_never_left_out() -> None:
    expected, actual = rows(1), rows(1)
    actual[0, 0, :4] += 50
    found = compared(actual, expected)
    assert (found["boxes"].error, found["boxes"].left_out) == (pytest.approx(50), 0)


def test_scores_that_are_all_alike_excuse_nothing() -> None:
    expected, actual = rows(), rows()
    expected[..., 4] = actual[..., 4] = 1e-6
    actual[0, 5:15, :4] += 50
    found = compared(actual, expected)
    assert found["boxes"].error > 1
    assert found["boxes"].left_out == 0
    json.dumps([asdict(each) for each in found.values()])


def test_a_row_too_few() -> None:
    found = compared(rows()[:, :-1], rows())
    assert {each.unpaired for each in found.values()} == {1}
    assert {each.error for each in found.values()} == {math.inf}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number(value: float) -> None:
    expected, actual = rows(), rows()
    actual[0, 3, 0] = value
    assert compared(actual, expected)["boxes"].error == math.inf
    expected[0, 3, 0] = value
    assert compared(actual, expected)["boxes"].error == 0


def test_several_images_at_once() -> None:
    expected = np.concatenate([rows(), rows()[:, ::-1]])
    found = compared(expected[:, ::-1], expected)
    assert all(each.error == 0 for each in found.values())
