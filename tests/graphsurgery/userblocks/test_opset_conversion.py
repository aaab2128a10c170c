"""Operators whose form changed between opsets, and those that have none in the model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphsurgery.modelfile.model import ModelFile
from tests import models

from .test_onnx_block import C, H, W, block, is_the_file, put, refused, saved


def node(operator: str, inputs: str, *outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), list(outputs) or ["out"], **attributes)


def numbers(**named: Sequence[int]) -> list[TensorProto]:
    return [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in named.items()]


def detector(opset: int) -> Any:
    return models.detector(opset=opset, ir_version=10 if opset >= 21 else 8)


def inserted(
    folder: Path, nodes: list[NodeProto], own: int, opset: int, extra: Sequence[TensorProto] = ()
) -> ModelFile:
    """The block of these nodes in a model of another opset, where it does what the file does."""
    user = block(nodes, opset=own, extra=extra)
    user.ir_version = 10 if own >= 21 else 8
    edited, _ = put(saved(user, folder / "b.onnx"), detector(opset))
    models.valid(edited.to_bytes())
    assert edited.opset == opset
    is_the_file(edited, user)
    return edited


def operators(edited: ModelFile) -> list[str]:
    (insertion,) = edited.insertions()
    nodes = edited.proto().graph.node
    return [each.op_type for name in insertion.nodes for each in nodes if each.name == name]


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_attributes_that_became_inputs(tmp_path: Path, opset: int) -> None:
    """Their values are constants that are named after the inputs."""
    nodes = [
        node("Clip", "in", "a", min=-0.5, max=0.75),
        node("Concat", "a in", "b", axis=1),
        node("Slice", "b", "c", starts=[4], ends=[4 + C], axes=[1]),
        node("Dropout", "c"),
    ]
    edited = inserted(tmp_path, nodes, 9, opset)
    assert operators(edited)[:3] == ["Clip", "Concat", "Slice"]
    names = {each.name.removeprefix("model.2.b.") for each in edited.proto().graph.initializer}
    assert names >= {"a.min", "a.max", "c.starts", "c.ends", "c.axes"}


FLAT = [node("Squeeze", "mean axes", "flat"), node("Sigmoid", "flat", "g"), node("Unsqueeze", "g axes", "gate")]


@pytest.mark.parametrize(("own", "opset"), [(17, 11), (13, 9), (21, 11), (13, 21)])
def test_axes_that_are_an_input(tmp_path: Path, own: int, opset: int) -> None:
    nodes = [node("ReduceSum", "in axes", "mean"), *FLAT, node("Mul", "in gate")]
    edited = inserted(tmp_path, nodes, own, opset, numbers(axes=[-1, 2]))
    assert operators(edited) == ["ReduceSum", "Squeeze", "Sigmoid", "Unsqueeze", "Mul"]


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("own", [9, 11])
def test_axes_that_are_an_attribute(tmp_path: Path, own: int, opset: int) -> None:
    nodes = [
        node("ReduceSum", "in", "mean", axes=[2, 3]),
        node("Squeeze", "mean", "flat", axes=[2, 3]),
        node("ReduceLogSumExp", "flat", "all", keepdims=0),
        node("Sub", "flat all", "g"),
        node("Unsqueeze", "g", "gate", axes=[2, 3]),
        node("Mul", "in gate"),
    ]
    inserted(tmp_path, nodes, own, opset)


@pytest.mark.parametrize("opset", [9, 11, 13, 21])
@pytest.mark.parametrize(("own", "count"), [(13, 0), (17, 0), (18, 3), (18, 2)])
def test_a_split(tmp_path: Path, own: int, opset: int, count: int) -> None:
    """In three parts of 16 channels, the last one is smaller."""
    names = ["a", "b", "c"][: count or 2]
    split = node("Split", "in" if count else "in sizes", *names, axis=1, **({"num_outputs": count} if count else {}))
    nodes = [split, node("Sigmoid", "a", "d"), node("Concat", " ".join(["d", *names[1:]]), axis=1)]
    inserted(tmp_path, nodes, own, opset, numbers(sizes=[4, 12]))


@pytest.mark.parametrize("opset", [13, 18, 21])
@pytest.mark.parametrize("sizes", [{}, {"split": [4, 12]}])
def test_a_split_of_long_ago(tmp_path: Path, opset: int, sizes: dict[str, Any]) -> None:
    nodes = [node("Split", "in", "a", "b", axis=1, **sizes), node("Sigmoid", "a", "c"), node("Concat", "c b", axis=1)]
    inserted(tmp_path, nodes, 11, opset)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(("own", "opset"), [(13, 11), (17, 9), (11, 13), (11, 17)])
def test_a_softmax(tmp_path: Path, own: int, opset: int, axis: int) -> None:
    """Up to opset 12 it is along its axis and all behind it, which ONNX's converter knows how to say."""
    nodes = [node("Softmax", "in", "a", axis=axis), node("Relu", "a")]
    made = operators(inserted(tmp_path, nodes, own, opset))
    if own == 13 or own == 17:
        assert made == (["Softmax", "Relu"] if axis == -1 else ["Transpose", "Softmax", "Transpose", "Relu"])


@pytest.mark.parametrize("opset", [11, 13])
def test_a_hardswish_by_its_definition(tmp_path: Path, opset: int) -> None:
    assert operators(inserted(tmp_path, [node("HardSwish", "in")], 17, opset)) == ["HardSigmoid", "Mul"]


def test_zeros_in_a_shape(tmp_path: Path) -> None:
    nodes = [node("Reshape", "in flat", "a", allowzero=1), node("Sigmoid", "a", "b"), node("Reshape", "b back")]
    inserted(tmp_path, nodes, 17, 11, numbers(flat=[1, C, H * W], back=[0, 0, H, W]))


@pytest.mark.parametrize(
    ("nodes", "own", "opset", "words"),
    [
        (
            [node("Relu", "in", "a"), node("LayerNormalization", "a s b", axis=-1)],
            17,
            11,
            "its LayerNormalization cannot be said there (ONNX has it from opset 17 on)",
        ),
        ([node("Relu", "in", "a"), node("Gelu", "a")], 20, 17, "its Gelu cannot be said there (ONNX has it from opset"),
        ([node("Relu", "in", "a"), node("Pad", "a pads", mode="wrap")], 21, 17, "its Pad cannot be said there"),
        (
            [node("Relu", "in", "a"), node("AveragePool", "a", kernel_shape=[3, 3], pads=[2] * 4, dilations=[2, 2])],
            21,
            17,
            "its AveragePool cannot be said there",
        ),
        (
            [node("Relu", "in", "a"), node("ReduceMean", "a", noop_with_empty_axes=1)],
            18,
            17,
            "its ReduceMean cannot be said there",
        ),
    ],
)
def test_the_operator_that_stands_in_the_way_is_named(
    tmp_path: Path, nodes: list[NodeProto], own: int, opset: int, words: str
) -> None:
    scales = [numpy_helper.from_array(np.ones(W, np.float32), name) for name in "sb"]
    user = block(nodes, opset=own, extra=[*scales, *numbers(pads=[0] * 8)])
    user.ir_version = 10
    message = refused(saved(user, tmp_path / "b.onnx"), detector(opset))
    assert message.startswith(f"b.onnx is in opset {own} and the model in {opset}, and {words}")
    assert message.endswith(f"; export it with opset {opset}")
