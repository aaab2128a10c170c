"""Activations of models with inputs that are no tensors of numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphsurgery as gsx
from graphsurgery.insertion.activations import activations
from graphsurgery.modelfile.model import ModelFile
from tests import models

_TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 4, 8, 8])
ODD = {
    "optional": helper.make_optional_type_proto(_TENSOR),
    "sequence": helper.make_sequence_type_proto(_TENSOR),
    "string": helper.make_tensor_type_proto(TensorProto.STRING, [1]),
}
READERS = {"optional": "OptionalHasElement", "sequence": "SequenceLength", "string": "Identity"}


def model(kind: str, *, depends: bool = False) -> ModelFile:
    """x -> Relu -> site -> Relu -> y beside an odd input; ``depends``: the site is taken from that one."""
    nodes = [
        models.node("Relu", ["x"], ["site"], "/model.0/Relu"),
        models.node("Relu", ["site"], ["y"], "/model.1/Relu"),
    ]
    outputs = [models.value("y")]
    if depends:
        nodes[0] = models.node("OptionalGetElement", ["odd"], ["site"], "/model.0/Get")
    else:
        nodes.append(models.node(READERS[kind], ["odd"], ["seen"]))
        result = {"optional": TensorProto.BOOL, "sequence": TensorProto.INT64, "string": TensorProto.STRING}[kind]
        outputs.append(models.value("seen", [1] if kind == "string" else [], result))
    inputs = [models.value("x"), helper.make_value_info("odd", ODD[kind])]
    made = models.model(nodes, inputs, outputs, opset=18, value_info=[models.value("site")])
    onnx.checker.check_model(made)
    return ModelFile.load(made)


@pytest.mark.parametrize("kind", ODD)
def test_an_input_that_the_place_does_not_depend_on_is_left_out(kind: str) -> None:
    found = activations(model(kind), [("site", TensorProto.FLOAT)])
    assert not found.failure
    ((_, tensors),) = found.images
    image = np.random.default_rng(0).random(models.SHAPE).astype(np.float32)
    np.testing.assert_array_equal(tensors["site"], image)
    report = gsx.verify(gsx.insert(model(kind), "simam", after="/model.0"), providers=["cpu"], seeds=1)
    assert report.passed
    assert not report.insertions[0].activation


def test_a_block_behind_such_an_input_is_compared_on_its_own() -> None:
    with_block = gsx.insert(model("optional", depends=True), "simam", after="/model.0")
    report = gsx.verify(with_block, providers=["cpu"], seeds=1)
    assert report.passed
    assert report.insertions[0].activation == "the model's input odd is not a tensor of numbers"
