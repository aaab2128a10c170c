"""Blocks that would take too much memory at their own size: estimated, compared on a smaller map, and said."""

from __future__ import annotations

import json
from typing import Any

import onnx
import pytest

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.verification import cases, memory
from graphsurgery.verification.memory import Memory, alive_at_once, shapes_in
from graphsurgery.verification.report import Mode
from tests import models

CHANNELS = 8


def model(side: int | str, block: str = "mhsa", **options: Any) -> ModelFile:
    """x -> Conv -> site -> [block] -> Relu -> y on a map of side x side."""
    shape = (1, CHANNELS, side, side)
    nodes = [
        models.node("Conv", ["x", "w"], ["site"], "/model.0/Conv"),
        models.node("Relu", ["site"], ["y"], "/model.1/Relu"),
    ]
    ends = [models.value("x", (1, 3, side, side))], [models.value("y", shape)]
    weights = [models.weight("w", (CHANNELS, 3, 1, 1))]
    made = models.model(nodes, *ends, weights, value_info=[models.value("site", shape)])
    return gsx.insert(ModelFile.load(made), block, after="/model.0", **options)


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little memory that attention over 16 x 16 positions is too much, and over 4 x 4 is not."""
    monkeypatch.setattr(memory, "_COMPARED", 12_000)
    monkeypatch.setattr(memory, "_RUN", 100)


BLOCKS = {"mhsa": {}, "mhsa[yolo]": {}, "psablock": {}, "aifi": {"settings": {"heads": 2}}}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_compared_on_a_smaller_map(block: str, tight: None) -> None:
    report = gsx.verify(model(16, block, gate="residual", **BLOCKS[block]), providers=["cpu"], seeds=1)
    assert report.passed, str(report)
    (insertion,) = report.insertions
    assert insertion.size.startswith(("compared at 4 x 4 instead of 16 x 16: ", "compared at 8 x 8 instead of 16 x 16"))
    assert insertion.size in str(report)
    assert json.loads(json.dumps(report.to_json()))["insertions"][0]["size"] == insertion.size
    assert insertion.inputs[-1] == "the activation of a random image"
    assert Mode.IN_THE_MODEL not in {row.mode for row in insertion.rows}


def test_with_enough_memory_nothing_is_said() -> None:
    (insertion,) = gsx.verify(model(16), providers=["cpu"], seeds=1).insertions
    assert not insertion.size
    assert insertion.rows[-1].mode is Mode.IN_THE_MODEL


def _softmax_over_queries(proto: onnx.ModelProto) -> None:
    (softmax,) = (node for node in proto.graph.node if node.op_type == "Softmax")
    softmax.attribute[0].i = 2


def _another_weight(proto: onnx.ModelProto) -> None:
    tensor = next(each for each in proto.graph.initializer if "spread" in each.name)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[3] += 0.01
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _keys_for_queries(proto: onnx.ModelProto) -> None:
    product = next(node for node in proto.graph.node if node.op_type == "MatMul")
    first, second = product.input
    product.input[:] = [second, first]


@pytest.mark.parametrize("mutate", [_softmax_over_queries, _another_weight, _keys_for_queries])
def test_a_block_that_is_not_its_template_s_fails(mutate: Any, tight: None) -> None:
    proto = model(16).proto()
    mutate(proto)
    report = gsx.verify(ModelFile.load(proto), providers=["cpu"], seeds=1)
    assert not report.passed
    assert "its nodes are not those that its template writes" in report.insertions[0].failure


def test_of_dynamic_sizes_what_arrives_is_cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(
        gsx.GraphSurgeryWarning, match="with an image of 640 x 640, psablock.yolo11. attends over 409,600"
    ):
        dynamic = model("side", "psablock")
    monkeypatch.setattr(memory, "_LOADED", 0)
    monkeypatch.setattr("graphsurgery.verification.arriving.IMAGE_SIDES", (16, 8))
    monkeypatch.setattr("graphsurgery.insertion.activations.IMAGE_SIDES", (16, 8))
    monkeypatch.setattr(cases, "SIZES", ((8, 8), (5, 9), (10, 7)))
    monkeypatch.setattr(memory, "_COMPARED", 20_000)  # these fit, 16 x 16 positions do not
    report = gsx.verify(dynamic, providers=["cpu"], seeds=1)
    assert report.passed, str(report)
    (insertion,) = report.insertions
    assert insertion.size.startswith("of the activation that arrives, 8 x 8 were compared")
    assert Mode.IN_THE_MODEL not in {row.mode for row in insertion.rows}


def test_a_model_that_is_too_large_to_run_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_RUN", 1e9)
    report = gsx.verify(model(16, "simam"), providers=["cpu"], seeds=1)
    assert report.passed
    assert "running the model up to there would take" in report.insertions[0].activation


def test_numbers_alive_at_once() -> None:
    x = models.value("x", (1, 1, 4, 4))
    nodes = [
        models.node("Relu", ["x"], ["a"]),
        models.node("Concat", ["a", "a", "a"], ["b"], axis=1),
        models.node("ReduceMax", ["b"], ["y"], axes=[1], keepdims=1),
    ]
    made = models.model(nodes, [x], [models.value("y", (1, 1, 4, 4))])
    shapes = shapes_in(made, {"x": (1, 1, 4, 4)})
    assert shapes["b"] == (1, 3, 4, 4)
    assert alive_at_once(made.graph, shapes) == 16 + 48  # a and b, x being gone
    larger = shapes_in(made, {"x": (1, 1, 8, 8)})
    assert alive_at_once(made.graph, larger) == 4 * 64
    assert Memory(2).compares(10**7)
    assert not Memory(2).compares(10**8)


def test_attention_over_many_positions_is_announced() -> None:
    with pytest.warns(gsx.GraphSurgeryWarning, match=r"1,600 positions \(40 x 40\): the score matrix of each head is"):
        model(40)
    said = r"with an image of 640 x 640, mhsa\[yolo\] attends over 409,600 positions \(640 x 640\): the score matrix"
    with pytest.warns(gsx.GraphSurgeryWarning, match=said):
        model("side", "mhsa[yolo]")
    assert model(20) is not None  # and over few it is not: warnings are errors here
