"""A block that is right passes where float32 leaves little: gates that close on large values, maps without a signal.

onnxruntime's Sigmoid is 0 from -18 on and off by 1.4e-7 before; sums of large terms leave their rounding in what goes
into a gate. What a wrong block does there is more, and shows elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.verification import verify

DETECTOR = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"


def detector(gain: float, *, offset: float = 0.0, size: int = 32) -> onnx.ModelProto:
    """images [1, 3, size, size] -> Conv (the site, of 64 channels) -> Sigmoid."""
    rng = np.random.default_rng(0)
    weights = {"weight": gain * rng.standard_normal((64, 3, 1, 1)), "bias": np.full(64, offset)}
    nodes = [
        helper.make_node("Conv", ["images", "weight", "bias"], ["site"], name="/model.0/Conv"),
        helper.make_node("Sigmoid", ["site"], ["output"], name="/model.1/Sigmoid"),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, count, size, size])
        for name, count in (("images", 3), ("output", 64))
    ]
    held = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "detector", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def report_of(model: ModelFile) -> Any:
    return verify(model, providers=["cpu"], seeds=1)


@pytest.mark.parametrize(
    "module",
    [
        "se",
        "cbam",
        "coordatt",
        "ese",
        *(
            pytest.param(each, marks=pytest.mark.long)
            for each in ("mlca", "lsk", "caa", "gam", "triplet", "bam", "simam", "eca")
        ),
    ],
)
def test_activations_of_some_hundreds(module: str) -> None:
    report_of(gsx.insert(detector(200.0), module, after="tensor:site")).require()


@pytest.mark.parametrize("gain", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_small_values_beside_large_ones(gain: float) -> None:
    """SiLU leaves values near 0 beside those of some hundreds, whose rounding a convolution of 3 x 3 brings there."""
    model = onnx.load(DETECTOR)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("model.8.cv2.conv"):
            scaled = numpy_helper.to_array(tensor) * np.float32(gain)
            tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    report_of(gsx.insert(model, "sk", after="/model.8")).require()


def test_a_map_that_hardly_varies() -> None:
    """Deviations of a hundredth around a mean of 5, on which an InstanceNormalization of one sum is short of digits."""
    model = gsx.insert(detector(1e-2, offset=5.0, size=112), "simam", after="tensor:site")
    assert model.insertions()[0].lowering == "instance-norm"
    report_of(model).require()


@pytest.mark.parametrize(("op_type", "other"), [("Sigmoid", "HardSigmoid"), ("ReduceMean", "ReduceMax")])
def test_a_wrong_block_fails_there(op_type: str, other: str) -> None:
    proto = gsx.insert(detector(200.0), "se", after="tensor:site").proto()
    names = ModelFile.load(proto).insertions()[0].nodes
    next(node for node in proto.graph.node if node.name in names and node.op_type == op_type).op_type = other
    (insertion,) = report_of(ModelFile.load(proto)).insertions
    assert {row.verdict for row in insertion.rows if row.mode == "in the model"} == {"failed"}
    assert not insertion.passed


def test_what_is_permitted_there_is_little_elsewhere() -> None:
    """A gate that is off by a hundred-thousandth fails on usual inputs, whatever is permitted on large ones."""
    proto = gsx.insert(detector(200.0), "se", after="tensor:site").proto()
    (record,) = ModelFile.load(proto).insertions()
    (last,) = (node for node in proto.graph.node if record.output_tensor in node.output)
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1.0002), "slightly"))
    inner = helper.make_node("Mul", [last.input[0], "slightly"], ["slightly off"], name=f"{last.name}/off")
    position = list(proto.graph.node).index(last)
    last.input[0] = "slightly off"
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes[:position], inner, *nodes[position:]])
    for entry in proto.metadata_props:
        entry.value = entry.value.replace(f'"{last.name}"', f'"{inner.name}","{last.name}"')
    assert not report_of(ModelFile.load(proto)).passed
