"""What nothing usual reaches is reached: bounds, overflow and epsilons of blocks, whatever stands in their place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.patterns.attention import ese
from graphsurgery.patterns.attention.activations import clip
from graphsurgery.verification import InsertionReport, Report, verify
from tests.graphsurgery.verification.test_insertions import detector


def inserted(module: str, channels: int = 32, **given: Any) -> onnx.ModelProto:
    return gsx.insert(detector("float32", 8, channels=channels), module, after="/model.8", **given).proto()


def verified(model: onnx.ModelProto) -> Report:
    return verify(ModelFile.load(model), providers=["cpu"], seeds=1)


def only(report: Report) -> InsertionReport:
    (insertion,) = report.insertions
    return insertion


def operator(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    names = ModelFile.load(model).insertions()[0].nodes
    return next(node for node in model.graph.node if node.name in names and node.op_type == op_type)


def set_constant(model: onnx.ModelProto, name: str, value: float) -> None:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    values = np.full_like(numpy_helper.to_array(tensor), value)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def without_clip(model: onnx.ModelProto) -> None:
    """Without its constants, and without these in the record."""
    clip = operator(model, "Clip")
    bounds = set(clip.input[1:])
    clip.op_type = "Identity"
    del clip.input[1:]
    for i in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[i].name in bounds:
            del model.graph.initializer[i]
    for entry in model.metadata_props:
        if entry.key.startswith("graphsurgery.insertion."):
            record = json.loads(entry.value)
            record["initializers"] = [name for name in record["initializers"] if name not in bounds]
            entry.value = json.dumps(record)


def other_bounds(model: onnx.ModelProto) -> None:
    clip = operator(model, "Clip")
    set_constant(model, clip.input[1], 0.1)
    set_constant(model, clip.input[2], 0.9)


def identity(op_type: str) -> Callable[[onnx.ModelProto], None]:
    def alter(model: onnx.ModelProto) -> None:
        node = operator(model, op_type)
        node.op_type = "Identity"
        del node.input[1:], node.attribute[:]

    return alter


def doubled_epsilon(op_type: str) -> Callable[[onnx.ModelProto], None]:
    def alter(model: onnx.ModelProto) -> None:
        (epsilon,) = (each for each in operator(model, op_type).attribute if each.name == "epsilon")
        epsilon.f *= 2

    return alter


@pytest.mark.parametrize(
    ("module", "channels", "alter"),
    [
        pytest.param("ese", 32, without_clip, id="clip"),
        pytest.param("ese", 32, other_bounds, id="bounds"),
        pytest.param("coordatt", 32, identity("HardSigmoid"), id="hard-sigmoid"),
        pytest.param("gc", 32, identity("Sub"), id="overflow"),  # the largest logit is not taken off
        pytest.param("gc", 32, doubled_epsilon("LayerNormalization"), id="epsilon", marks=pytest.mark.long),
        pytest.param("gc[official-mul]", 32, identity("Div"), id="quotient"),
        pytest.param("se", 16, identity("Relu"), id="one-channel"),  # a hidden one
        pytest.param("gc", 16, identity("Relu"), id="layer-norm", marks=pytest.mark.long),
        pytest.param("bam[cv-attention]", 16, identity("Relu"), id="turned", marks=pytest.mark.long),
        pytest.param("scsa", 32, doubled_epsilon("InstanceNormalization"), id="scsa", marks=pytest.mark.long),
    ],
)
def test_a_block_that_is_wrong_beyond_a_bound_fails(
    module: str, channels: int, alter: Callable[[onnx.ModelProto], None]
) -> None:
    model = inserted(module, channels)
    verified(model).require()
    alter(model)
    assert not verified(model).passed


def test_trained_weights_are_made_louder(tmp_path: Path) -> None:
    """To the bounds that they do not reach by themselves."""
    model = ModelFile.load(inserted("ese"))
    np.savez(tmp_path / "trained.npz", **model.insertions()[0].weights(model))
    trained = inserted("ese", weights=tmp_path / "trained.npz")
    report = verified(trained).require()
    assert only(report).not_exercised == ()
    assert any(row.reaching for row in only(report).rows)
    assert not any(row.weights_drawn for row in only(report).rows)
    other_bounds(trained)
    assert not verified(trained).passed


def test_what_was_made_is_said() -> None:
    report = verified(inserted("ese")).require()
    reaching = [row for row in only(report).rows if row.reaching]
    assert [str(row.mode) for row in reaching] == ["optimised", "as written"]
    assert all(row.worst is not None and row.worst.ratio < 0.5 for row in reaching)
    assert any(line.startswith("  cpu, with what reaches its bounds: passed") for line in report.lines())
    assert "the usual input times 20" in only(report).inputs


def test_what_cannot_be_reached_is_said() -> None:
    """One channel in a group is normalised to zero, whatever its epsilon is."""
    with pytest.warns(gsx.GraphSurgeryWarning, match="does not depend on the input"):
        report = verified(inserted("lct", 16, settings={"groups": 16})).require()
    (piece,) = only(report).not_exercised
    assert piece.startswith("InstanceNormalization: variances as small as its epsilon (")
    assert f"  not exercised: {piece}" in report.lines()
    assert report.to_json()["insertions"][0]["not_exercised"] == [piece]


def test_nothing_is_made_where_the_usual_inputs_reach_everything() -> None:
    report = verified(inserted("se"))
    assert not any(row.reaching for row in only(report).rows)
    assert only(report).not_exercised == ()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_element_types(dtype: str) -> None:
    model = gsx.insert(detector(dtype, channels=32), "ese", after="/model.8").proto()
    assert only(verified(model).require()).not_exercised == ()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_template_that_is_wrong_beyond_a_bound_fails(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In half precision an input is passed over where rounding comes between a template and its module: only there."""
    monkeypatch.setattr(ese, "clip", lambda t, x, low, high: clip(t, x, low + 0.1, high - 0.1))
    model = gsx.insert(detector(dtype, channels=32), "ese", after="/model.8").proto()
    assert not verified(model).passed


def test_a_gate_that_is_closed() -> None:
    model = inserted("ese", gate="residual")
    assert only(verified(model).require()).not_exercised == ()
    other_bounds(model)
    assert not verified(model).passed
