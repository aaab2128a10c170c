"""verify on blocks that the engine itself has put into a model."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.verification import verify

BLOCKS: list[tuple[str, dict[str, Any]]] = [
    ("simam", {}),
    ("se", {"reduction": 4}),
    ("ge", {}),
    ("ge", {"extent": 4}),
    ("ge[theta]", {}),
    ("ge[theta-plus]", {"extent": 2}),
    ("nam", {}),
    ("nam[channel+spatial]", {}),
]


def detector(
    dtype: str, size: int | None = 12, *, channels: int = 16, opset: int = 22, ir_version: int = 10
) -> onnx.ModelProto:
    """images [1, 3, size, size] -> /model.8 (Conv, Relu) -> /model.9 (Sigmoid).

    ``size`` None: an image of any size, and a stride of 8.
    """
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    number = helper.np_dtype_to_tensor_dtype(kind)
    frame: list[Any] = ["n", channels, "h", "w"] if size is None else [1, channels, size, size]
    conv = {"pads": [1] * 4, "strides": [8, 8] if size is None else [1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["/model.8/conv/out"], name="/model.8/conv/Conv", **conv),
        helper.make_node("Relu", ["/model.8/conv/out"], ["/model.8/act/out"], name="/model.8/act/Relu"),
        helper.make_node("Sigmoid", ["/model.8/act/out"], ["output"], name="/model.9/Sigmoid"),
    ]
    weight = np.random.default_rng(0).standard_normal((channels, 3, 3, 3)).astype(kind)
    graph = helper.make_graph(
        nodes,
        "detector",
        [
            helper.make_tensor_value_info(
                "images", number, ["n", 3, "rows", "columns"] if size is None else [1, 3, size, size]
            ),
            *([helper.make_tensor_value_info("w", number, weight.shape)] if ir_version < 4 else []),
        ],
        [helper.make_tensor_value_info("output", number, frame)],
        [numpy_helper.from_array(weight, "w")],
        value_info=[
            helper.make_tensor_value_info(name, number, frame) for name in (nodes[0].output[0], nodes[1].output[0])
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize(("module", "settings"), BLOCKS)
def test_every_block_agrees_with_its_module(module: str, settings: dict[str, Any], dtype: str) -> None:
    original = ModelFile.load(detector(dtype))
    model = gsx.insert(original, module, after="/model.8", settings=settings)
    report = verify(model, providers=["cpu"], original=original).require()
    assert report.rest.passed is True
    assert report.insertions[0].shape == (1, 16, 12, 12)


@pytest.mark.parametrize(("module", "settings"), [block for block in BLOCKS if block not in (BLOCKS[4], BLOCKS[7])])
def test_dynamic_sites(module: str, settings: dict[str, Any]) -> None:
    model = gsx.insert(detector("float32", None), module, after="/model.8", settings=settings)
    (insertion,) = verify(model, providers=["cpu"]).require().insertions
    assert insertion.shape == ("n", 16, "h", "w")
    assert insertion.activation == ""
    assert all(row.comparisons for row in insertion.rows)


def test_a_chain_at_one_site() -> None:
    model = gsx.insert(detector("float32"), "simam", after="/model.8")
    model = gsx.insert(model, "se", after="/model.8", gate="residual", settings={"reduction": 4})
    report = verify(model, providers=["cpu"]).require()
    first, second = report.insertions
    assert first.id != second.id
    assert any(row.gate_opened for row in second.rows)


def test_folded_weights_that_were_changed_in_the_file_fail() -> None:
    proto = gsx.insert(detector("float32"), "nam", after="/model.8").proto()
    (record,) = ModelFile.load(proto).insertions()
    for tensor in proto.graph.initializer:
        if tensor.name in record.initializers:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.05), tensor.name))
    assert not verify(ModelFile.load(proto), providers=["cpu"]).passed


def test_another_change_to_the_model_fails() -> None:
    original = ModelFile.load(detector("float32"))
    proto = gsx.insert(original, "simam", after="/model.8").proto()
    proto.graph.node[0].attribute[0].ints[0] = 0
    report = verify(ModelFile.load(proto), providers=["cpu"], original=original)
    assert report.rest.passed is False
    assert not report.passed


@pytest.mark.parametrize("gate", ["none", "residual"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_block_whose_weights_are_nodes(dtype: str, gate: str) -> None:
    """Up to IR version 3, and too large for the structure to hold them."""
    original = ModelFile.load(detector(dtype, channels=64, opset=9, ir_version=3))
    model = gsx.insert(original, "se", after="/model.8", settings={"reduction": 2}, gate=gate)
    report = verify(model, providers=["cpu"], original=original).require()
    assert any(row.gate_opened for row in report.insertions[0].rows) is (gate == "residual")


@pytest.mark.parametrize("opset", [11, 16, 17])
def test_a_map_of_equal_channels_is_normalised_over_them(opset: int) -> None:
    """Of equal channels a normalisation leaves what rounding has left of their mean, a hundred times larger."""
    model = gsx.insert(detector("float32", channels=256, opset=opset, ir_version=7), "swin", after="/model.8")
    verify(model, providers=["cpu"]).require()
