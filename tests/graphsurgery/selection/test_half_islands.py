"""A block in float16 at a float32 site: what an INT8 model wants around its quantised operators."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphsurgery
from graphsurgery.errors import ParityFailed
from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.shapes import ShapeTable
from graphsurgery.modelfile.model import ModelFile
from tests import models
from tests.exports import export

BLOCKS = ("simam", "se", "nam", "cbam", "ge[theta]", "coordatt", "gc")
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def inserted(block: str, **options: str) -> ModelFile:
    given = models.chain("Relu", "Neg", shape=[1, 64, 20, 20])
    return graphsurgery.insert(given, block, after="tensor:t0", precision="fp16", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("block", BLOCKS)
def test_between_two_casts(block: str) -> None:
    model = inserted(block)
    (record,) = model.insertions()
    index = GraphIndex(model)
    shapes = ShapeTable(index)
    nodes = [index.nodes[index.node_names[name][0]] for name in record.nodes]
    assert [node.op_type for node in (nodes[0], nodes[-1])] == ["Cast", "Cast"]
    kinds = [shapes.lookup(node.output[0])[0] for node in nodes]
    assert kinds[-1] == FLOAT
    assert kinds[0] == HALF
    assert kinds.count(HALF) >= 3, "the rest are statistics"
    assert shapes.lookup("y")[0] == FLOAT
    weights = {t.data_type for t in model.structure.graph.initializer if t.name in record.initializers}
    assert weights <= {HALF, FLOAT, onnx.TensorProto.INT64}


@pytest.mark.parametrize("block", BLOCKS)
def test_parity_is_that_of_float16(block: str) -> None:
    report = graphsurgery.verify(inserted(block), seeds=1)
    assert report.passed, list(report.lines())
    assert report.insertions[0].tolerance == graphsurgery.verify(in_half(), seeds=1).insertions[0].tolerance


def in_half() -> ModelFile:
    given = models.chain("Relu", "Neg", shape=[1, 64, 20, 20])
    for value in (*given.graph.input, *given.graph.output):
        value.type.tensor_type.elem_type = HALF
    return graphsurgery.insert(given, "simam", after="tensor:t0")


def test_a_wrong_weight_is_still_seen() -> None:
    model = inserted("se", gate="none").proto()
    for tensor in model.graph.initializer:
        if tensor.name.endswith("fc2.bias"):
            values = onnx.numpy_helper.to_array(tensor) + np.float16(0.5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), tensor.name))
    good = inserted("se", gate="none")
    (record,) = good.insertions()
    assert record.precision == "fp16"
    report = graphsurgery.verify(ModelFile.load(model), seeds=1)
    assert report.passed, "weights are read back from the file: another bias is another module, and no error"
    for node in model.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "Tanh"
    with pytest.raises(ParityFailed):
        graphsurgery.verify(ModelFile.load(model), seeds=1).require()


@pytest.mark.parametrize("block", ["simam", "se"])
def test_in_a_quantised_model(block: str) -> None:
    source = export("yolov8n", "qdq")
    model = graphsurgery.insert(source, block, after="C2f[-1]", qdq="int8", precision="fp16")
    assert graphsurgery.verify(model, seeds=1).passed
    assert graphsurgery.remove(model).to_bytes() == source.read_bytes()


def test_at_a_half_site_it_is_the_default() -> None:
    given = in_half()
    before = graphsurgery.remove(given)
    again = graphsurgery.insert(before, "simam", after="tensor:t0", precision="fp16")
    assert [n.op_type for n in again.structure.graph.node] == [n.op_type for n in given.structure.graph.node]
