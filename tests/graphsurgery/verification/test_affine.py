"""A BatchNormalization whose epsilon or constants are not what its weights make of it is told from the file alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.verification import InsertionReport, verify
from tests.graphsurgery.verification.test_insertions import detector


def inserted(module: str, dtype: str = "float32", **given: Any) -> onnx.ModelProto:
    return gsx.insert(detector(dtype, 8, channels=32), module, after="/model.8", **given).proto()


def checked(model: onnx.ModelProto) -> InsertionReport:
    (insertion,) = verify(ModelFile.load(model), providers=["cpu"], seeds=1).insertions
    return insertion


def batch_normalization(model: onnx.ModelProto) -> onnx.NodeProto:
    names = ModelFile.load(model).insertions()[0].nodes
    return next(node for node in model.graph.node if node.name in names and node.op_type == "BatchNormalization")


@pytest.mark.parametrize("epsilon", [0.0, 5e-6, 1.1e-5, 2e-5])
def test_another_epsilon(epsilon: float) -> None:
    model = inserted("nam")
    (attribute,) = (each for each in batch_normalization(model).attribute if each.name == "epsilon")
    attribute.f = epsilon
    found = checked(model)
    assert not found.passed
    assert "/model.8/nam/BatchNormalization is off by" in found.failure


def test_the_same_function_in_other_constants() -> None:
    """Another epsilon, and a variance that makes up for it."""
    model = inserted("nam")
    node = batch_normalization(model)
    (attribute,) = (each for each in node.attribute if each.name == "epsilon")
    attribute.f = 2e-5
    (variance,) = (tensor for tensor in model.graph.initializer if tensor.name == node.input[4])
    values = numpy_helper.to_array(variance).astype(np.float64) + 1e-5 - 2e-5
    variance.CopyFrom(numpy_helper.from_array(values.astype(np.float32), variance.name))
    assert checked(model).passed


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("module", ["nam", "lct"])
def test_weights_that_are_read_back_fit(module: str, dtype: str) -> None:
    assert checked(inserted(module, dtype)).failure == ""
