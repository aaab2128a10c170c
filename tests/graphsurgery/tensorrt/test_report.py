"""The report of a build: agreement, times, verdict."""

from __future__ import annotations

import json

import numpy as np
import pytest

from graphsurgery.tensorrt.inspector import Layer
from graphsurgery.tensorrt.report import Agreement, BuildReport

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
