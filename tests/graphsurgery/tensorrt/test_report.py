"""The report of a build: agreement, times, verdict."""

from __future__ import annotations

import json

import numpy as np
import pytest

from graphsurgery.tensorrt.inspector import Layer
from graphsurgery.tensorrt.report import Agreement, BuildReport
from graphsurgery.tensorrt.timing import Times, difference, verdict

EXPECTED = np.array([100.0, -50.0, 0.0])


@pytest.mark.parametrize(
    ("found", "agrees"),
    [
        (EXPECTED, True),
        (np.array([101.9, -50.0, 0.0]), True),
        (np.array([100.0, -50.0, 2.1]), False),
        (np.array([100.0, -50.0, np.nan]), False),
        (np.array([np.inf, -50.0, 0.0]), False),
        (EXPECTED[:2], False),
    ],
)
def test_agreement(found: np.ndarray, agrees: bool) -> None:  # type: ignore[type-arg]
    assert Agreement.of("y", found, EXPECTED).agrees is agrees


def test_an_output_of_zeros_agrees_with_itself_alone() -> None:
    assert Agreement.of("y", np.zeros(3), np.zeros(3)).agrees
    assert not Agreement.of("y", np.full(3, 1e-3), np.zeros(3)).agrees


def test_times() -> None:
    times = Times.of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    assert (times.median, times.spread, times.rounds) == (6.0, 8.0, 11)


def test_a_difference_is_taken_round_by_round() -> None:
    """A machine that gets slower on the way is no noise in the difference."""
    before = [1.0, 2.0, 3.0, 4.0]
    after = [1.5, 2.5, 3.5, 4.5]
    assert difference(before, after) == (0.5, 0.0)
    assert verdict(before, after) == "difference +0.500 ms (+20.0%), noise 0.000 ms"
    assert verdict(after, before) == "difference -0.500 ms (-16.7%), noise 0.000 ms"
    assert "below noise" in verdict([1.0, 1.0, 1.0], [0.5, 1.5, 1.1])


def test_the_report() -> None:
    layer = Layer("a", "kgen", ("FP16",), ("/a/Mul",))
    report = BuildReport(
        "m.onnx",
        {"tensorrt": "10.9"},
        [Agreement("y", 0.5, 0.001, True)],
        [layer],
        {"a.simam": [layer]},
        [2.0, 2.0],
        [1.0, 1.0],
    )
    data = json.loads(json.dumps(report.to_json()))
    assert data["agrees"] is True
    assert data["verdict"].startswith("difference +1.000 ms (+100.0%)")
    assert data["blocks"]["a.simam"][0]["nodes"] == ["/a/Mul"]
    text = "\n".join(report.lines())
    assert "y agrees with onnxruntime" in text
    assert "a.simam is part of 1 of them" in text
    report.agreements = [Agreement("y", 0.5, 0.5, True)]
    assert not report.agrees
    assert "y does not agree with onnxruntime" in "\n".join(report.lines())
