"""Weights that a template has in another shape, or transposed, are not kept twice, and come back to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graphsurgery as gsx
from graphsurgery.errors import InsertionError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.find import Found
from graphsurgery.graph.part import Part
from graphsurgery.modelfile.cut_payload import with_payload, without_payload
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.wire import delimited
from graphsurgery.rewriting import places, rewrite
from graphsurgery.userblocks import make_block
from tests import models
from tests.models import node, value

CHANNELS, HIDDEN = 1024, 64
NUMBERS = 4 * CHANNELS * HIDDEN
"""bytes of one weight: more than a record keeps"""
INITIALIZER = 5


def squeeze_excite(form: str, shared: bool = False) -> onnx.ModelProto:
    """As exporters write linear layers with a bias ("Gemm") and without ("MatMul")."""
    rng = np.random.default_rng(0)
    first = (0.05 * rng.standard_normal((HIDDEN, CHANNELS))).astype(np.float32)
    second = (0.05 * rng.standard_normal((CHANNELS, HIDDEN))).astype(np.float32)
    if form == "Gemm":
        attributes: dict[str, Any] = {"transB": 1}
        matrices = first, second
    else:
        attributes, matrices = {}, (first.T, second.T)
    nodes = [
        node("GlobalAveragePool", ["x"], ["p"], "/se/Pool"),
        node("Flatten", ["p"], ["f"], "/se/Flatten"),
        node(form, ["f", "fc1"], ["h"], "/se/fc1", **attributes),
        node("Relu", ["h"], ["r"], "/se/Relu"),
        node(form, ["r", "fc2"], ["z"], "/se/fc2", **attributes),
        node("Sigmoid", ["z"], ["g"], "/se/Sigmoid"),
        node("Reshape", ["g", "wide"], ["s"], "/se/Reshape"),
        node("Mul", ["x", "s"], ["y"], "/se/Mul"),
        node("Relu", ["y"], ["out"], "/Relu"),
    ]
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(matrices[0]), "fc1"),
        numpy_helper.from_array(np.ascontiguousarray(matrices[1]), "fc2"),
        numpy_helper.from_array(np.array([1, CHANNELS, 1, 1]), "wide"),
    ]
    outputs = [value("out", (1, CHANNELS, 4, 4))]
    if shared:
        nodes.append(node("Identity", ["fc1"], ["also"], "/also"))
        outputs.append(value("also", matrices[0].shape))
    return models.model(nodes, [value("x", (1, CHANNELS, 4, 4))], outputs, weights)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find", found_in)


def found_in(model: ModelFile) -> list[Found]:
    """What `find` gives for such a model."""
    nodes = tuple(n for n, each in enumerate(model.graph.node) if each.name.startswith("/se/"))
    part = Part(nodes, "x", "y", FeatureMap(CHANNELS, 4, 4, batch=1))
    weights = {}
    for name, rows in (("fc1", HIDDEN), ("fc2", CHANNELS)):
        values = model.tensor(name).astype(np.float64)
        weights[f"{name}.weight"] = (values if len(values) == rows else values.T)[:, :, None, None]
    return [Found("se", part, make_block("se", {"bias": False}), weights, proven=True, max_error=0.0)]


@pytest.mark.parametrize("form", ["Gemm", "MatMul"])
@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_the_file_does_not_grow_by_its_weights(form: str, target: str) -> None:
    model = squeeze_excite(form)
    done = rewrite(ModelFile.load(model), target=target, force_form=True)
    (insertion,) = done.insertions
    assert insertion.replaced is not None
    assert insertion.replaced.left == ()
    reused = form == "Gemm" and target == "onnxruntime"
    assert set(insertion.replaced.moved) == (set() if reused else {"fc1", "fc2"})
    assert set(insertion.replaced.turned) == ({"fc1", "fc2"} if form == "MatMul" else set())
    assert done.model.size < len(model.SerializeToString()) + 4096
    assert gsx.verify(done.model, providers="cpu").passed
    assert gsx.remove(done.model).to_bytes() == model.SerializeToString()


def test_a_file_that_was_saved_gives_it_back(tmp_path: Any) -> None:
    model = squeeze_excite("MatMul")
    rewrite(ModelFile.load(model), force_form=True).model.save(tmp_path / "m.onnx")
    assert gsx.remove(tmp_path / "m.onnx").to_bytes() == model.SerializeToString()


def test_what_something_else_reads_stays() -> None:
    model = squeeze_excite("Gemm", shared=True)
    done = rewrite(ModelFile.load(model), force_form=True)
    (insertion,) = done.insertions
    assert insertion.replaced is not None
    assert set(insertion.replaced.moved) == {"fc2"}
    assert done.model.tensor("fc1").shape == (HIDDEN, CHANNELS)
    assert gsx.remove(done.model).to_bytes() == model.SerializeToString()


def test_weights_that_were_trained_since_come_back_as_they_are() -> None:
    made = rewrite(ModelFile.load(squeeze_excite("MatMul")), force_form=True).model.proto()
    (weight,) = (each for each in made.graph.initializer if each.name.endswith("fc1.weight"))
    weight.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weight), weight.name))
    back = gsx.remove(ModelFile.load(made))
    np.testing.assert_array_equal(back.tensor("fc1"), 2 * ModelFile.load(squeeze_excite("MatMul")).tensor("fc1"))


def test_a_weight_that_is_gone_is_told() -> None:
    model = rewrite(ModelFile.load(squeeze_excite("MatMul")), force_form=True).model
    (insertion,) = model.insertions()
    assert insertion.replaced is not None
    lost = replace(insertion.replaced, moved={"fc1": "nowhere"})
    with pytest.raises(InsertionError, match="the initializer 'nowhere' is gone, which has the numbers of 'fc1'"):
        lost.contents(model.tensor)


@pytest.mark.parametrize("moved", [{}, {"fc1": "out"}], ids=["nowhere", "elsewhere"])
def test_a_record_that_does_not_say_where_is_damaged(moved: dict[str, str]) -> None:
    model = rewrite(ModelFile.load(squeeze_excite("MatMul")), force_form=True).model
    (insertion,) = model.insertions()
    assert insertion.replaced is not None
    with pytest.raises(InsertionError, match="the record of what a block replaced is damaged"):
        replace(insertion.replaced, moved=moved).contents(lambda name: np.zeros(3, np.float32))


@pytest.mark.parametrize("padding", [0, 2])
def test_an_initializer_without_its_numbers(padding: int) -> None:
    """``padding``: of the length of the numbers, which some writers write longer than necessary."""
    numbers = bytes(range(200)) * 2
    tag_and_length = bytes([9 << 3 | 2, 0x80 | (len(numbers) & 0x7F)])
    length = bytes([0x80 | len(numbers) >> 7, *([0x80] * (padding - 1)), 0]) if padding else bytes([len(numbers) >> 7])
    inner = bytes([8, 100, 16, 1]) + tag_and_length + length + numbers + bytes([66, 1]) + b"w"
    field = delimited(INITIALIZER, inner)
    cut = without_payload(field)
    assert cut is not None
    assert len(cut) < len(field) - 390
    assert with_payload(cut, numbers) == field


@pytest.mark.parametrize("fields", [["float_data"], []], ids=["floats", "none"])
def test_numbers_that_are_kept_in_another_way_stay(fields: Sequence[str]) -> None:
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], float_data=[1.0, 2.0] if fields else [])
    assert without_payload(delimited(INITIALIZER, tensor.SerializeToString())) is None
