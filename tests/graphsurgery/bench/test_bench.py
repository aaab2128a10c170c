"""Timing in turns: order, statistics, inputs, the machine, and whole models. No test asserts a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphsurgery as gsx
from graphsurgery.bench import bench
from graphsurgery.bench.inputs import inputs_for
from graphsurgery.bench.machine import describe, read_gpus
from graphsurgery.bench.whole import precision
from graphsurgery.errors import MissingProvider, RequestError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.runtime.timing import Difference, Times, Verdict, in_turns, interval, wall

DETECTOR = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"


class Clock:
    """A timer that notes its name, and gives one number after the other."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.number = name, log, 0.0

    def __call__(self) -> float:
        self.log.append(self.name)
        self.number += 1.0
        return self.number


def test_in_turns_after_a_warm_up() -> None:
    log: list[str] = []
    taken = in_turns([Clock("a", log), Clock("b", log)], 3, warm_up=2)
    assert "".join(log) == "ab" * 5
    assert taken == [[3.0, 4.0, 5.0]] * 2


def test_a_random_order_asks_everyone_once_a_round() -> None:
    log: list[str] = []
    in_turns([Clock(name, log) for name in "abcd"], 20, rng=np.random.default_rng(0))
    rounds = ["".join(log[i : i + 4]) for i in range(0, 80, 4)]
    assert {"".join(sorted(each)) for each in rounds} == {"abcd"}
    assert len(set(rounds)) > 5


def test_a_wall_clock_calls() -> None:
    called: list[int] = []
    assert wall(lambda: called.append(1))() >= 0
    assert called == [1]


def test_times() -> None:
    times = Times.of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    assert (times.median, times.spread, times.rounds) == (6.0, 8.0, 11)
    with pytest.raises(ValueError, match="at least two"):
        Times.of([])


def jitter(seed: int, size: float = 0.1) -> Any:
    return size * np.random.default_rng(seed).standard_normal(40)


DRIFT = np.linspace(10.0, 20.0, 40)


@pytest.mark.parametrize(
    ("shift", "control_shift", "verdict"),
    [
        (1.0, 0.0, Verdict.SLOWER),
        (-1.0, 0.0, Verdict.FASTER),
        (0.0, 0.0, Verdict.BELOW_NOISE),
        (1.0, 1.5, Verdict.BELOW_NOISE),  # the same model differs from itself by more
        (1.0, -1.5, Verdict.BELOW_NOISE),
        (1.0, 0.5, Verdict.SLOWER),
    ],
)
def test_a_difference_is_taken_round_by_round_and_judged_by_the_control(
    shift: float, control_shift: float, verdict: Verdict
) -> None:
    """A machine that gets twice as slow on the way is no noise in the difference."""
    before = list(DRIFT + jitter(1))
    found = Difference.of(before, list(DRIFT + shift + jitter(2)), list(DRIFT + control_shift + jitter(3)))
    assert found.verdict is verdict
    assert found.low <= found.median <= found.high
    assert abs(found.median - shift) < 0.1
    assert str(verdict) in str(found)
    assert found.to_json()["verdict"] == verdict


def test_without_a_control_the_differences_spread_is_the_noise() -> None:
    before = [1.0, 2.0, 3.0, 4.0]
    after = [1.5, 2.5, 3.5, 4.5]
    assert str(Difference.of(before, after)).startswith("difference +0.500 ms (+20.0%), 95% interval +0.500 ... +0.500")
    assert Difference.of(before, after).verdict is Verdict.SLOWER
    assert Difference.of(after, before).verdict is Verdict.FASTER
    assert Difference.of([1.0, 1.0, 1.0], [0.5, 1.5, 1.1]).verdict is Verdict.BELOW_NOISE
    wide = Difference.of([1.0] * 20, list(np.linspace(1.1, 4.0, 20)))  # all above zero, far apart
    assert (wide.low > 0, wide.verdict) == (True, Verdict.BELOW_NOISE)


def test_the_interval_holds_the_median_and_narrows() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.standard_normal(20), rng.standard_normal(2000)
    assert interval(few) == interval(few)
    (a, b), (c, d) = interval(few), interval(many)
    assert a < np.median(few) < b
    assert d - c < (b - a) / 3
    assert interval(few, 0.5)[0] < interval(few, 0.5)[1] < b


def test_a_difference_whose_interval_holds_zero_is_noise_even_where_the_control_has_none() -> None:
    before = [10.0] * 6
    found = Difference.of(before, [9.0, 9.1, 9.4, 10.1, 10.6, 11.0], before)
    assert (found.noise, found.low < 0 < found.high) == (0.0, True)
    assert found.verdict is Verdict.BELOW_NOISE


def dynamic() -> ModelFile:
    """images [n, 3, h, w] and a size [n, 2] beside it."""
    kinds = onnx.TensorProto
    inputs = [
        onnx.helper.make_tensor_value_info("images", kinds.FLOAT, ["n", 3, "h", "w"]),
        onnx.helper.make_tensor_value_info("im_shape", kinds.FLOAT, ["n", 2]),
    ]
    nodes = [onnx.helper.make_node("Relu", ["images"], ["y"]), onnx.helper.make_node("Relu", ["im_shape"], ["z"])]
    outputs = [onnx.helper.make_tensor_value_info(name, kinds.FLOAT, None) for name in "yz"]
    graph = onnx.helper.make_graph(nodes, "dynamic", inputs, outputs)
    return ModelFile.load(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8))


def test_open_sizes_are_chosen_and_said() -> None:
    found = inputs_for(dynamic())
    assert {name: array.shape for name, array in found.arrays.items()} == {
        "images": (1, 3, 640, 640),
        "im_shape": (1, 2),
    }
    assert "images is ?x3x?x?: timed at 1x3x640x640" in found.chosen[0]
    assert found.arrays["im_shape"].tolist() == [[640, 640]]


def test_open_sizes_as_asked_for() -> None:
    found = inputs_for(dynamic(), {"images": (4, 3, 96, 64)}, batch=4)
    assert {name: array.shape for name, array in found.arrays.items()} == {"images": (4, 3, 96, 64), "im_shape": (4, 2)}
    assert found.arrays["im_shape"].tolist() == [[96, 64]] * 4
    assert not any(text.startswith("images") for text in found.chosen)
    assert inputs_for(ModelFile.load(DETECTOR)).chosen == ()


@pytest.mark.parametrize(
    ("shapes", "batch", "said"),
    [
        ({"picture": (1, 3, 4, 4)}, None, "no input 'picture'; it has images"),
        ({"images": (1, 3, 64, 64)}, None, "1x3x64x64 does not fit the input images, whose shape is 1x3x320x320"),
        ({"images": (1, 3, 320)}, None, "does not fit"),
        ({}, 2, "the input images has a batch of 1, which cannot be made 2"),
    ],
)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], batch: int | None, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        inputs_for(ModelFile.load(DETECTOR), shapes, batch)


def test_a_whole_model_against_itself_without_its_insertions() -> None:
    model = gsx.insert(DETECTOR, "se", after="/model.8")
    report = bench(model, rounds=2, warm_up=0, threads=1)
    (timed,) = report.timed
    data = json.loads(json.dumps(report.to_json()))
    assert (data["removed"], data["threads"], data["notes"]) == (1, 1, [])
    assert data["inputs"] == {"images": {"shape": [1, 3, 320, 320], "dtype": "float32"}}
    (provider,) = data["providers"]
    assert [len(provider[side]["rounds"]) for side in ("before", "after", "control")] == [2, 2, 2]
    assert all(time > 0 for time in timed.after.rounds)
    assert timed.after.kernels["cpu"] > timed.before.kernels["cpu"] == timed.control.kernels["cpu"]
    assert (provider["tf32"], provider["gpus_after"]) == (None, [])
    assert any("difference" in line for line in report.lines())
    assert repr(report).startswith(
        "<BenchReport of detector.onnx against itself without its insertions: cpu difference"
    )
    assert str(report).splitlines() == list(report.lines())
    assert report._repr_html_().count("<td>") == 7


def test_the_baseline_is_really_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed as "before" has the bytes of the model before the insertion."""
    from graphsurgery.bench import whole

    seen: list[bytes] = []
    real = whole.session
    monkeypatch.setattr(whole, "session", lambda data, *a, **k: seen.append(data) or real(data, *a, **k))
    model = gsx.insert(DETECTOR, "simam", after="/model.8")
    bench(model, rounds=2, warm_up=0)
    assert seen == [DETECTOR.read_bytes(), model.to_bytes(), DETECTOR.read_bytes()]


def test_refused() -> None:
    with pytest.raises(RequestError, match="no insertions made by graphsurgery; name a baseline="):
        bench(DETECTOR)
    with pytest.raises(RequestError, match="do not have the same inputs: they differ in im"):
        bench(DETECTOR, dynamic())
    with pytest.raises(RequestError, match="rounds is a whole number from 2 on, not 1"):
        bench(DETECTOR, DETECTOR, rounds=1)
    with pytest.raises(MissingProvider, match="no coreml provider"):
        bench(DETECTOR, DETECTOR, providers=["coreml"])


def test_no_size_is_zero() -> None:
    with pytest.raises(RequestError, match="0x3x96x64 does not fit the input images, whose shape is "):
        inputs_for(dynamic(), {"images": (0, 3, 96, 64)})


def test_precision() -> None:
    assert precision(ModelFile.load(DETECTOR)) == {"weights": {"float32": 119}, "quantised": False}


def test_the_machine() -> None:
    machine = json.loads(json.dumps(describe()))
    assert machine["cores"] >= 1
    assert machine["processor"]
    assert machine["versions"]["onnx"] == onnx.__version__
    assert "tensorrt" not in machine["versions"] or machine["gpus"]


def test_what_nvidia_smi_prints() -> None:
    """Two GPUs, the second of which does not tell its power."""
    text = (
        "NVIDIA H200, 570.86.15, 143771, 1980, 1980, 3201, 41, 121.52, P0\n"
        "Orin (nvgpu), 540.4.0, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]\n"
    )
    first, second = read_gpus(text)
    assert first == {
        "name": "NVIDIA H200",
        "driver": "570.86.15",
        "memory_mib": 143771.0,
        "sm_mhz": 1980.0,
        "sm_max_mhz": 1980.0,
        "memory_mhz": 3201.0,
        "temperature_c": 41.0,
        "power_w": 121.52,
        "performance_state": "P0",
    }
    assert (second["name"], second["sm_mhz"], second["power_w"]) == ("Orin (nvgpu)", None, None)
    assert read_gpus("") == []
