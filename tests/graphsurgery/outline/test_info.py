"""Info: one screen about a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

import graphsurgery as gsx
from graphsurgery.cli.main import main
from tests import models
from tests.exports import export

KEYS = [
    *("model", "bytes", "producer", "opset", "domains", "ir_version", "nodes", "weights", "quantised", "inputs"),
    *("outputs", "blocks", "roles", "insertions", "unusual"),
]


def unusual(model: onnx.ModelProto) -> str:
    return "\n".join(gsx.info(model).unusual)


@pytest.mark.parametrize(
    ("name", "head", "roles"),
    [
        ("yolov8n", "Detect", {"p3": 1, "p4": 1, "p5": 1, "neck-outputs": 3}),
        ("rtdetr-l", "RTDETRDecoder", {"p3": 1, "p4": 1, "p5": 1}),
    ],
)
def test_exported_detectors(name: str, head: str, roles: dict[str, int]) -> None:
    path = export(name, "torchscript")
    found = gsx.info(path)
    proto = onnx.load(path)
    assert (found.opset, found.ir_version) == (proto.opset_import[0].version, proto.ir_version)
    assert found.producer.startswith("pytorch ")
    assert (found.nodes, found.bytes) == (len(proto.graph.node), path.stat().st_size)
    assert sum(found.weights.values()) == sum(
        len(onnx.numpy_helper.to_array(t).ravel()) for t in proto.graph.initializer
    )
    assert found.blocks.get(head) == 1, found.blocks
    assert {role: len(found.roles[role]) for role in roles} == roles
    assert [tensor.name for tensor in found.inputs] == ["images"]
    assert (found.quantised, found.insertions) == (False, {})
    assert len(repr(found).splitlines()) <= 24


def test_insertions_and_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = gsx.insert(models.detector(), "simam", after="/model.2")
    data: dict[str, Any] = json.loads(json.dumps(gsx.info(model).to_json()))
    assert list(data) == KEYS
    assert data["insertions"] == {"model.2.simam": "simam"}
    assert data["inputs"] == [{"name": "images", "dtype": "float32", "shape": [1, 3, 32, 32]}]
    model.save(tmp_path / "m.onnx")
    assert main(["info", str(tmp_path / "m.onnx"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {**data, "model": "m.onnx"}
    html = gsx.info(model)._repr_html_()
    assert "<td>insertions</td><td>model.2.simam (simam)</td>" in html


def test_a_usual_model_has_nothing_unusual() -> None:
    assert gsx.info(export("yolov8n", "torchscript")).unusual == ()


def test_what_is_unusual() -> None:
    model = models.detector()
    del model.graph.node[3:4]
    model.graph.node.append(models.detector().graph.node[3])
    assert "not in topological order" in unusual(model)

    model = models.detector(image=("N", 3, "H", "W"))
    assert "sizes of its inputs are dynamic: images" in unusual(model)

    model = models.detector()
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 3))
    assert "operators that are not of the ONNX standard: com.example" in unusual(model)
    assert "neither declared nor can be inferred" in unusual(model)
    assert gsx.info(model).domains == {"com.example": 3}

    model = models.detector()
    model.graph.node[0].name = ""
    assert "1 of its nodes have no name" in unusual(model)

    model = models.detector()
    model.functions.append(
        helper.make_function("local", "F", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [])
    )
    assert "it has local functions: F" in unusual(model)

    model = models.detector()
    del model.graph.node[3]
    assert "which nothing" in unusual(model) or "no valid model" in unusual(model)


def test_external_data_is_named(tmp_path: Path) -> None:
    model = models.detector()
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert gsx.info(tmp_path / "m.onnx").unusual == ("weights lie in other files: w.bin",)


def test_types_and_quantisation() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="d"),
    ]
    scale = helper.make_tensor("s", TensorProto.FLOAT, [], [0.5])
    zero = helper.make_tensor("z", TensorProto.INT8, [], [0])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8, 4, 4]) for n in "xy")
    found = gsx.info(helper.make_model(helper.make_graph(nodes, "g", [x], [y], [scale, zero])))
    assert found.quantised
    assert found.weights == {"float32": 1, "int8": 1}
    assert found.blocks == {}
    assert "blocks        none recognised" in repr(found)
    assert "exporter      not told" in repr(found)


def test_control_characters_are_spelled_out(tmp_path: Path) -> None:
    model = models.detector()
    model.producer_name = "\x1b[2Jpytorch"
    path = tmp_path / "a\x1b[31m.onnx"
    onnx.save(model, path)
    for shown in (repr(gsx.info(path)), str(gsx.info(path)), repr(gsx.ModelFile.load(path))):
        assert "\x1b" not in shown
        assert r"a\x1b[31m.onnx" in shown
    assert r"\x1b[2Jpytorch" in repr(gsx.info(path))
