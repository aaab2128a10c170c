"""A real export whose activations are a TensorRT plugin each, with nothing declared: its places are still found."""

from __future__ import annotations

import onnx
import pytest
from onnx import ModelProto, helper

import graphsurgery as gsx
from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.shapes import ShapeTable
from graphsurgery.modelfile.model import ModelFile
from tests.exports import export


def with_plugins(model: ModelProto, op_type: str, domain: str) -> int:
    """Put one node of the plugin in the place of each Sigmoid and Mul of a SiLU, in place; how many."""
    graph = model.graph
    sigmoids = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Sigmoid"}
    nodes, replaced = [], set[str]()
    for node in graph.node:
        gate = next((name for name in node.input if node.op_type == "Mul" and sigmoids.get(name) in node.input), None)
        if gate is not None:
            node = helper.make_node(op_type, [sigmoids[gate]], node.output, name=node.name, domain=domain)
            replaced.add(gate)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.output[0] not in replaced)
    del graph.value_info[:]
    if domain:
        model.opset_import.add(domain=domain, version=1)
    return len(replaced)


@pytest.mark.parametrize("domain", ["", "trt"])
def test_every_convolution_and_most_activations_are_places(domain: str) -> None:
    source = onnx.load(export("yolov8n", "simplified"))
    model = onnx.ModelProto()
    model.CopyFrom(source)
    assert with_plugins(model, "Mish_TRT", domain) == 57
    index = GraphIndex(ModelFile.load(model))
    table, truth = ShapeTable(index), ShapeTable(GraphIndex(ModelFile.load(source)))
    maps = {"Conv": 0, "Mish_TRT": 0, "Concat": 0, "Add": 0}
    for node in index.nodes:
        for name in node.output:
            known, real = table.lookup(name)[1], truth.lookup(name)[1]
            if known is not None and real is not None:
                assert len(known) == len(real)
                assert all(size in (None, other) for size, other in zip(known, real, strict=True))
        if node.op_type in maps:
            maps[node.op_type] += table.is_feature_map(node.output[0])
    # not those that a residual Add alone reads (6), and that in front of SPPF's pools (1)
    assert maps["Mish_TRT"] == 50
    assert maps["Conv"] >= 63
    assert maps["Concat"] >= 13
    assert maps["Add"] == 6
    for place in ("/model.4", "role:p5", "/model.15", "/model.21"):
        (site,) = gsx.sites(model, place)
        assert site.shape[1] in (64, 256)


def test_what_the_user_says_of_one_tensor_flows_to_the_next_plugin() -> None:
    model = onnx.load(export("yolov8n", "simplified"))
    with_plugins(model, "Mish_TRT", "")
    (site,) = gsx.sites(model, "/model.4")
    assert site.shape == (None, 64, None, None)
    after = gsx.insert(model, "ge[theta-plus]", after="/model.4", shapes={site.tensor: "1x64x80x80"})
    assert after.insertions()[0].site.shape == (1, 64, 80, 80)
    assert gsx.remove(after).to_bytes() == ModelFile.load(model).to_bytes()
    (inner,) = gsx.sites(model, "/model.4/m.0/cv2/act", shapes={"/model.4/m.0/cv2/act/Mul_output_0": "1x32x80x80"})
    assert inner.shape == (1, 32, 80, 80)
    assert inner.dtype == "float32"
