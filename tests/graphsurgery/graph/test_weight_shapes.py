"""What weights tell behind an operator that nobody knows: ``plugin`` gives ``p``, and the nodes behind it read that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphsurgery.feature_map import Dimension
from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.shapes import ShapeTable
from graphsurgery.modelfile.model import ModelFile
from tests import models
from tests.models import node, weight

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
MAP = (None, 8, None, None)
SHAPES = {"w": (16, 8, 3, 3), "w1": (8, 8, 1, 1), "grouped": (16, 2, 3, 3), "up": (8, 12, 2, 2), "wide": (16, 24, 1, 1)}


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def floats(name: str, *values: float) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32), name)


def behind(
    *nodes: NodeProto, more: Sequence[TensorProto] = (), domain: str = "", dtype: Any = np.float32
) -> ModelProto:
    """x -> Conv -> c -> plugin -> p -> nodes -> y, where nothing declares p or y."""
    weights = [weight(name, shape, dtype) for name, shape in SHAPES.items()]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    stem = node("Conv", ["x", "w1"], ["c"], "stem", kernel_shape=[1, 1])
    plugin = node("Odd_TRT", ["c"], ["p"], "plugin", domain=domain)
    made = models.model(
        [stem, plugin, *nodes],
        [models.value("x", (1, 8, 16, 16), kind)],
        [models.value("y", None, kind)],
        [*weights, *more],
    )
    for used in {domain, *(each.domain for each in nodes)} - {""}:
        made.opset_import.add(domain=used, version=1)
    return made


def known(made: ModelProto, tensor: str) -> tuple[int, tuple[Dimension, ...] | None]:
    return ShapeTable(GraphIndex(ModelFile.load(made))).lookup(tensor)


CONV = node("Conv", ["p", "w"], ["y"])


@pytest.mark.parametrize("domain", ["", "mmdeploy", "com.microsoft"])
def test_a_convolution_tells_its_input_and_its_output(domain: str) -> None:
    made = behind(CONV, domain=domain)
    assert known(made, "p") == (FLOAT, MAP)
    assert known(made, "y") == (FLOAT, (None, 16, None, None))


def test_the_type_is_that_of_the_weights() -> None:
    assert known(behind(CONV, dtype=np.float16), "p") == (HALF, MAP)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("Conv", ["p", "grouped"], ["y"], group=4)], (None, 8, None, None)),
        ([node("ConvTranspose", ["p", "up"], ["y"])], (None, 8, None, None)),
        ([node("Relu", ["p"], ["a"]), node("Conv", ["a", "w"], ["y"])], MAP),
        ([node("MaxPool", ["p"], ["a"], kernel_shape=[2, 2]), node("Conv", ["a", "w"], ["y"])], MAP),
        ([node("GlobalAveragePool", ["p"], ["a"]), node("Conv", ["a", "w1"], ["y"])], MAP),
        ([node("BatchNormalization", ["p", "s", "s", "s", "s"], ["a"]), node("Conv", ["a", "w"], ["y"])], MAP),
        ([node("Resize", ["p", "", "twice"], ["a"]), node("Conv", ["a", "w"], ["y"])], MAP),
        ([node("Concat", ["p", "c"], ["a"], axis=1), node("Conv", ["a", "wide"], ["y"])], (1, 16, 16, 16)),
        ([node("Split", ["p", "parts"], ["a", "b"], axis=1), node("Conv", ["b", "w"], ["y"])], (None, 12, None, None)),
        ([node("FusedConv", ["p", "w"], ["y"], domain="com.microsoft")], MAP),
        ([node("QuickGelu", ["p"], ["a"], domain="com.microsoft"), node("Conv", ["a", "w"], ["y"])], MAP),
        ([node("Gemm", ["p", "matrix"], ["y"])], (None, 5)),
        ([node("Gemm", ["p", "matrix"], ["y"], transB=1)], (None, 7)),
    ],
)
def test_what_a_consumer_tells(nodes: list[NodeProto], expected: tuple[Dimension, ...]) -> None:
    more = [floats("s", *[0.5] * 8), floats("twice", 1, 1, 2, 2), ints("parts", 4, 8), weight("matrix", (5, 7))]
    assert known(behind(*nodes, more=more), "p") == (FLOAT, expected)


@pytest.mark.parametrize(
    ("node_of", "expected"),
    [
        (node("Sigmoid", ["r"], ["t"]), (None, 16, None, None)),
        (node("Add", ["r", "r"], ["t"]), (None, 16, None, None)),
        (node("Concat", ["r", "r"], ["t"], axis=1), (None, 32, None, None)),
        (node("AveragePool", ["r"], ["t"], kernel_shape=[2, 2]), (None, 16, None, None)),
        (node("GlobalAveragePool", ["r"], ["t"]), (None, 16, 1, 1)),
        (node("InstanceNormalization", ["r", "s", "s"], ["t"]), (None, 16, None, None)),
        (node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]), (None, None, None, 16)),
        (node("Gelu", ["r"], ["t"], domain="com.microsoft"), (None, 16, None, None)),
    ],
)
def test_knowledge_flows_on(node_of: NodeProto, expected: tuple[Dimension, ...]) -> None:
    made = behind(node("Conv", ["p", "w"], ["r"]), node_of, node("Neg", ["t"], ["y"]), more=[floats("s", *[0.5] * 16)])
    assert known(made, "y") == (FLOAT, expected)


def test_behind_a_map_that_is_resized_to_computed_sizes() -> None:
    """What a Conv reads is known though the target of the Resize is an input of the model."""
    made = behind(node("Resize", ["c", "", "", "target"], ["a"]), node("Conv", ["a", "w"], ["y"]))
    made.graph.input.append(models.value("target", (4,), TensorProto.INT64))
    assert known(made, "a") == (FLOAT, MAP)


def test_the_output_of_a_sum_is_a_map_where_the_other_operand_is_unknown() -> None:
    """``c`` has 8 channels, and what reads the sum says that it is a map: no operand can change them."""
    made = behind(node("Add", ["c", "p"], ["a"]), node("Relu", ["a"], ["b"]), node("Conv", ["b", "w"], ["y"]))
    assert known(made, "a")[1] == (None, 8, 16, 16)
    assert known(made, "p") == (FLOAT, None)


def test_two_unknown_parts_of_a_concatenation_stay_unknown() -> None:
    made = behind(
        node("Odd_TRT", ["c"], ["q"]), node("Concat", ["p", "q"], ["a"], axis=1), node("Conv", ["a", "wide"], ["y"])
    )
    assert known(made, "p")[1] == (None, None, None, None)
    assert known(made, "a")[1] == (None, 24, None, None)


def test_a_weight_that_is_stretched_tells_nothing() -> None:
    whole = [floats("one", 1.0), floats("eight", *[1.0] * 8), weight("m", (8, 3))]
    tokens = node("MatMul", ["t", "m"], ["y"])
    for scale, last in (("one", 8), ("eight", 8)):
        made = behind(node("LayerNormalization", ["p", scale], ["t"]), tokens, more=whole)
        made.graph.output[0].CopyFrom(models.value("y", (1, 4, 3)))
        assert known(made, "p") == (FLOAT, (1, 4, last))
    made = behind(node("LayerNormalization", ["p", "one"], ["y"]), more=whole)
    made.graph.output[0].CopyFrom(models.value("y", (1, 4, "c")))
    assert known(made, "p") == (FLOAT, (1, 4, "c"))


def test_what_the_model_declares_counts_more() -> None:
    made = behind(CONV)
    made.graph.value_info.append(models.value("p", (1, 8, 5, 5)))
    assert known(made, "p") == (FLOAT, (1, 8, 5, 5))
    assert known(made, "y") == (FLOAT, (1, 16, 3, 3))


def test_nothing_is_told_of_constants() -> None:
    made = behind(CONV)
    table = ShapeTable(GraphIndex(ModelFile.load(made)))
    assert table.lookup("w") in ((0, None), (FLOAT, SHAPES["w"]))


def test_the_node_at_which_shapes_stop() -> None:
    made = behind(node("Odd_TRT", ["p"], ["q"], "second"), node("Relu", ["q"], ["y"]))
    index = GraphIndex(ModelFile.load(made))
    stopped = ShapeTable(index).stops("y")
    assert stopped is not None
    assert index.nodes[stopped].name == "plugin"
    assert ShapeTable(index).stops("c") is None


def test_the_order_of_questions_does_not_change_the_answers() -> None:
    made = behind(node("Conv", ["p", "w"], ["r"]), node("Neg", ["r"], ["y"]))
    made.graph.output[0].CopyFrom(models.value("y", (1, 16, 4, 4)))
    for order in (("r", "p", "c"), ("c", "p", "r")):
        table = ShapeTable(GraphIndex(ModelFile.load(made)))
        found = {tensor: table.lookup(tensor)[1] for tensor in order}
        assert found == {"c": (1, 8, 16, 16), "p": (1, 8, None, None), "r": (1, 16, 4, 4)}


def test_the_copy_has_the_nodes_of_the_model() -> None:
    from graphsurgery.graph.shapes import inferred

    made = behind(node("FusedConv", ["p", "w", "", "p"], ["y"], domain="com.microsoft", activation="Relu"))
    before = made.SerializeToString(deterministic=True)
    copy = inferred(made)
    assert made.SerializeToString(deterministic=True) == before
    assert copy is not None
    assert [list(each.output) for each in copy.graph.node] == [list(each.output) for each in made.graph.node]
    assert [onnx.helper.get_node_attr_value(copy.graph.node[-1], "activation")] == [b"Relu"]
