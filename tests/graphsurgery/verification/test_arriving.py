"""Blocks that get another map than their records say are told so; nothing is computed for maps that are not there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from onnx import ModelProto, TensorProto

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from tests import models


def made(block: str, **options: object) -> ModelProto:
    """x -> Conv -> site -> [block] -> Sigmoid -> y on a map of 8 x 8."""
    nodes = [
        models.node("Conv", ["x", "w"], ["site"], "/model.0/Conv"),
        models.node("Sigmoid", ["site"], ["y"], "/model.1/Sigmoid"),
    ]
    ends = [models.value("x", (1, 3, 8, 8))], [models.value("y", None)]
    weights = [models.weight("w", (4, 3, 1, 1))]
    return gsx.insert(models.model(nodes, *ends, weights), block, after="/model.0", **options).proto()


def resize(model: ModelProto, *sizes: int) -> None:
    for size, dimension in zip(sizes, model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dimension.dim_value = size
    forget_shapes(model)


def forget_shapes(model: ModelProto) -> None:
    del model.graph.value_info[:]


def narrow(model: ModelProto) -> None:
    resize(model, 1, 3, 8, 1)


def batch(model: ModelProto) -> None:
    resize(model, 2, 3, 8, 8)


def stride(model: ModelProto) -> None:
    model.graph.node[0].attribute.append(models.node("Conv", [], [], strides=[2, 2]).attribute[0])
    forget_shapes(model)


def channels(model: ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(models.weight("w", (6, 3, 1, 1)))
    forget_shapes(model)


def flat(model: ModelProto) -> None:
    model.graph.node[0].CopyFrom(models.node("Flatten", ["x"], ["site"], "/model.0/Conv"))
    forget_shapes(model)


def stopped(model: ModelProto) -> None:
    """Nothing can be run, and the graph declares what arrives."""
    model.graph.node[0].CopyFrom(models.node("Unknown", ["x"], ["site"], "/model.0/Conv", domain="plugins"))
    model.opset_import.add(domain="plugins", version=1)
    forget_shapes(model)
    model.graph.value_info.append(models.value("site", (1, 4, 4, 4)))


def half(model: ModelProto) -> None:
    """The graph computes in another type than the record says."""
    model.graph.node[0].output[0] = "before"
    cast = models.node("Cast", ["before"], ["site"], "cast", to=TensorProto.FLOAT16)
    model.graph.node.insert(1, cast)
    forget_shapes(model)


CHANGES: dict[str, tuple[Callable[[ModelProto], None], str]] = {
    "narrow": (narrow, "float32 [1, 4, 8, 1]"),
    "batch": (batch, "float32 [2, 4, 8, 8]"),
    "stride": (stride, "float32 [1, 4, 4, 4]"),
    "channels": (channels, "float32 [1, 6, 8, 8]"),
    "flat": (flat, "float32 [1, 192]"),
    "stopped": (stopped, "float32 [1, 4, 4, 4]"),
    "half": (half, "float16 [1, 4, 8, 8]"),
}


@pytest.mark.parametrize("block", ["ge[theta]", "simam"])
@pytest.mark.parametrize("change", CHANGES)
def test_another_map_than_the_record_says(block: str, change: str) -> None:
    model = made(block)
    alter, said = CHANGES[change]
    alter(model)
    report = gsx.verify(model, providers="cpu", seeds=1, ignore_rest=True)
    (insertion,) = report.insertions
    assert not report.passed
    assert insertion.failure == (
        f"it was inserted for a map that is float32 [1, 4, 8, 8], and what it reads, 'site', is {said}"
    )
    assert insertion.rows == ()


def test_chained_blocks_are_looked_at_one_by_one() -> None:
    model = gsx.insert(ModelFile.load(made("simam")), "ge[theta]", after="/model.0").proto()
    narrow(model)
    report = gsx.verify(model, providers="cpu", seeds=1, ignore_rest=True)
    assert all("[1, 4, 8, 1]" in each.failure for each in report.insertions)
    assert len(report.insertions) == 2


def test_sizes_that_the_record_leaves_open() -> None:
    nodes = [models.node("Neg", ["x"], ["site"], "/model.0/Neg"), models.node("Neg", ["site"], ["y"], "/model.1/Neg")]
    ends = [models.value("x", ("n", 4, "h", "w"))], [models.value("y", None)]
    model = gsx.insert(models.model(nodes, *ends), "simam", after="/model.0").proto()
    resize(model, 2, 4, 8, 6)
    assert gsx.verify(model, providers="cpu", seeds=1, ignore_rest=True).passed
