"""ONNX files as blocks that are wrong, or that ask for more than any block needs: one sentence, and no cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

import graphsurgery
from graphsurgery.errors import BlockError
from graphsurgery.modelfile import limits
from graphsurgery.userblocks.block_graph import BlockGraph
from tests import models

MAP = ("n", "c", "h", "w")
SECONDS = 5.0
"""far more than any of the files here takes, and far less than what they ask for"""


def block(nodes: Sequence[NodeProto], opset: int = 17, functions: Sequence[FunctionProto] = (), **values: Any) -> bytes:
    constants = [numpy_helper.from_array(np.asarray(each), name) for name, each in values.items()]
    made = models.model(nodes, [models.value("x", MAP)], [models.value("y", MAP)], constants, opset=opset)
    made.functions.extend(functions)
    if functions:
        made.opset_import.append(helper.make_opsetid("local", 1))
    return made.SerializeToString()


def inserted(data: bytes, folder: Path) -> graphsurgery.ModelFile:
    file = folder / "x.onnx"
    file.write_bytes(data)
    start = time.process_time()
    try:
        return graphsurgery.insert(models.detector(), str(file), after="/model.0")
    finally:
        assert time.process_time() - start < SECONDS


def refusal(data: bytes, folder: Path) -> str:
    with pytest.raises(BlockError) as raised:
        inserted(data, folder)
    assert "\n" not in raised.value.message
    return raised.value.message


def add(tensor: TensorProto) -> bytes:
    made = onnx.load_from_string(block([models.node("Add", "xw", "y")]))
    made.graph.initializer.append(tensor)
    return made.SerializeToString()


def call(name: str, *inputs: str, output: str) -> NodeProto:
    return helper.make_node(name, inputs, [output], domain="local")


def function(name: str, *nodes: NodeProto, attributes: Sequence[str] = ()) -> FunctionProto:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], ["b"], list(nodes), imports, list(attributes))


# ---------------------------------------------------------------------- wrong


def referring() -> NodeProto:
    node = models.node("Elu", "x", "y")
    node.attribute.append(AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="of_nothing"))
    return node


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "constant without a value": (
        lambda: block([models.node("Constant", "", "c"), models.node("Add", "xc", "y")]),
        "has a Constant, 'c', without a tensor as its value",
    ),
    "constant of text": (
        lambda: block([models.node("Constant", "", "c", value_string="text"), models.node("Add", "xc", "y")]),
        "has a Constant, 'c', without a tensor as its value",
    ),
    "constant without an output": (
        lambda: block([models.node("Constant", "", "", value_int=1), models.node("Relu", "x", "y")]),
        "has a Constant, '', without a tensor as its value",
    ),
    "no input": (lambda: block([models.node("Relu", "", "y")]), "Relu: .* has input size 0"),
    "too many inputs": (lambda: block([models.node("Relu", "xx", "y")]), "Relu: .* has input size 2"),
    "attribute of another type": (lambda: block([models.node("Elu", "x", "y", alpha=1)]), "Elu: .*'FLOAT'"),
    "unknown attribute": (lambda: block([models.node("Relu", "x", "y", alpha=1.0)]), "Relu: Unrecognized attribute"),
    "missing attribute": (lambda: block([models.node("MaxPool", "x", "y")]), "MaxPool: .*kernel_shape"),
    "reference to nothing": (lambda: block([referring()]), "an attribute of its Elu refers to no function"),
    "weight that is too short": (
        lambda: add(TensorProto(name="w", dims=[1], data_type=TensorProto.FLOAT, raw_data=b"123")),
        r"'w' cannot be read: its bytes are not those of float32 \[1\]",
    ),
    "weight of another shape": (
        lambda: add(TensorProto(name="w", dims=[7], data_type=TensorProto.FLOAT, raw_data=b"1234")),
        r"'w' cannot be read: its bytes are not those of float32 \[7\]",
    ),
    "weight of a negative shape": (
        lambda: add(TensorProto(name="w", dims=[-1], data_type=TensorProto.FLOAT, raw_data=b"1234")),
        r"'w' cannot be read: its bytes are not those of float32 \[-1\]",
    ),
    "weight of an unknown type": (
        lambda: add(TensorProto(name="w", dims=[1], data_type=99, raw_data=b"1234")),
        r"'w' cannot be read: its bytes are not those of type 99 \[1\]",
    ),
    "made twice": (
        lambda: block([models.node("Relu", "x", "y"), models.node("Neg", "x", "y")]),
        "makes the tensor 'y' twice",
    ),
    "output that nothing makes": (
        lambda: block([models.node("Relu", "x", "z")]),
        "no node of it makes its output 'y'",
    ),
    "output that is a constant": (
        lambda: block([models.node("Relu", "x", "z")], y=np.ones((1, 8, 16, 16), np.float32)),
        "no node of it makes its output 'y'",
    ),
    "circle": (
        lambda: block([models.node("Add", "xb", "a"), models.node("Relu", "a", "b"), models.node("Relu", "b", "y")]),
        "nothing makes 'b'",
    ),
    "name that is not text": (
        lambda: block([models.node("Relu", "x", ["tt"]), models.node("Relu", ["tt"], "y")]).replace(b"tt", b"\xff\xfe"),
        "is not UTF-8 text",
    ),
    "recursive function": (
        lambda: block([call("F", "x", output="y")], functions=[function("F", call("F", "a", output="b"))]),
        "its function F calls itself",
    ),
    "functions that call each other": (
        lambda: block(
            [call("F", "x", output="y")],
            functions=[function("F", call("G", "a", output="b")), function("G", call("F", "a", output="b"))],
        ),
        "its function F calls itself",
    ),
    "integers where floats are needed": (
        lambda: block([models.node("Conv", "xw", "y")], w=np.zeros((16, 16, 1, 1), np.int64)),
        "does not work on .*Conv",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_block_is_told(case: str, tmp_path: Path) -> None:
    build, said = WRONG[case]
    with pytest.raises(BlockError, match=said):
        inserted(build(), tmp_path)
    assert "\n" not in refusal(build(), tmp_path)


# ---------------------------------------------------------------------- enormous


def bomb(depth: int, calls: int = 2) -> bytes:
    functions = [function("F0", models.node("Relu", "a", "b"))]
    for i in range(depth):
        names = ["a", *(f"t{n}" for n in range(calls - 1)), "b"]
        inner = [call(f"F{i}", names[n], output=names[n + 1]) for n in range(calls)]
        functions.append(function(f"F{i + 1}", *inner))
    return block([call(f"F{depth}", "x", output="y")], functions=functions)


def test_functions_that_double_each_other(tmp_path: Path) -> None:
    assert f"stand for {2**25:,} nodes" in refusal(bomb(25), tmp_path)


def test_functions_that_are_nested_too_deep(tmp_path: Path) -> None:
    assert f"more than {limits.CALL_DEPTH} deep" in refusal(bomb(2 * limits.CALL_DEPTH, calls=1), tmp_path)


def test_functions_within_functions_are_a_block(tmp_path: Path) -> None:
    (insertion,) = inserted(bomb(3), tmp_path).insertions()
    assert len(insertion.nodes) == 2**3


def test_a_file_of_too_many_nodes(tmp_path: Path) -> None:
    names = ["x", *(f"t{i}" for i in range(limits.BLOCK_NODES)), "y"]
    nodes = [models.node("Relu", [a], [b]) for a, b in pairwise(names)]
    assert f"a block has at most {limits.BLOCK_NODES:,}" in refusal(block(nodes), tmp_path)


HUGE = 10**11
ENORMOUS: dict[str, Callable[[], bytes]] = {
    "Range": lambda: block(
        [*sum_of("r", cast=True), models.node("Range", "abc", "r")], a=np.int64(0), b=np.int64(HUGE), c=np.int64(1)
    ),
    "Range of floats": lambda: block(
        [*sum_of("r"), models.node("Range", "abc", "r")], a=np.float32(0), b=np.float32(HUGE), c=np.float32(1)
    ),
    "Range of what is computed": lambda: block(
        [*sum_of("r", cast=True), models.node("Mul", "bb", "m"), models.node("Range", "amc", "r")],
        a=np.int64(0), b=np.int64(10**6), c=np.int64(1),
    ),
    "Expand": lambda: block([*sum_of("r"), models.node("Expand", "vs", "r")], v=np.ones(1, np.float32), s=[HUGE]),
    "Tile": lambda: block([*sum_of("r"), models.node("Tile", "vs", "r")], v=np.ones(1, np.float32), s=[HUGE]),
    "ConstantOfShape": lambda: block([*sum_of("r"), models.node("ConstantOfShape", "s", "r")], s=[HUGE]),
    "Pad": lambda: block([*sum_of("r"), models.node("Pad", "vs", "r")], v=np.ones(1, np.float32), s=[0, HUGE]),
    "columns and rows": lambda: block(
        [
            models.node("Expand", "vs", "a"), models.node("Expand", "vt", "b"), models.node("Add", "ab", "r"),
            *sum_of("r"),
        ],
        v=np.ones((1, 1), np.float32), s=[1, 10**6], t=[10**6, 1],
    ),
    "the feature map itself": lambda: block(
        [models.node("Tile", "xs", "r"), models.node("GlobalAveragePool", "r", "m"), models.node("Mul", "xm", "y")],
        s=[1, 1, 10**6, 10**6],
    ),
}  # fmt: skip


def sum_of(name: str, *, cast: bool = False) -> list[NodeProto]:
    """x plus the sum of a tensor."""
    first = [models.node("Cast", name, "f", to=TensorProto.FLOAT)] if cast else []
    total = models.node("ReduceSum", "f" if cast else name, "z", keepdims=0)
    return [*first, total, models.node("Add", "xz", "y")]


@pytest.mark.parametrize("case", ENORMOUS)
def test_sizes_are_looked_at_before_anything_is_computed(case: str, tmp_path: Path) -> None:
    assert "elements" in (said := refusal(ENORMOUS[case](), tmp_path)) or "would be" in said


def test_constants_that_double_each_other(tmp_path: Path) -> None:
    names = [f"t{i}" for i in range(41)]
    nodes = [models.node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)]
    nodes += [models.node("Identity", ["t40"], "r"), *sum_of("r", cast=True)]
    assert "its tensor t28 would be [2147483648]" in refusal(block(nodes, t0=np.ones(8, np.int64)), tmp_path)


def test_a_split_into_more_parts_than_it_has(tmp_path: Path) -> None:
    nodes = [models.node("Split", "x", "ab", axis=1, num_outputs=10**9), models.node("Concat", "ba", "y", axis=1)]
    with pytest.raises(BlockError):
        inserted(block(nodes, opset=18), tmp_path)


def test_constants_worth_computing_are_computed(tmp_path: Path) -> None:
    nodes = [models.node("Range", "abc", "r"), *sum_of("r", cast=True)]
    model = inserted(block(nodes, a=np.int64(0), b=np.int64(1000), c=np.int64(1)), tmp_path)
    (insertion,) = model.insertions()
    assert [node.op_type for node in model.structure.graph.node if node.name in insertion.nodes] == ["Add"]


def test_a_record_is_no_more_trusted_than_a_file(tmp_path: Path) -> None:
    model = inserted(block([models.node("Relu", "x", "y")]), tmp_path)
    (insertion,) = model.insertions()
    graph = BlockGraph.from_text(insertion.settings["graph"], "x.onnx")
    for damage in (
        lambda graph: graph.node[0].ClearField("input"),
        lambda graph: graph.ClearField("node"),
        lambda graph: graph.ClearField("input"),
        lambda graph: graph.output.add(),
        lambda graph: graph.input[0].type.tensor_type.shape.dim.add(),
        lambda graph: graph.node[0].input.__setitem__(0, "nothing"),
        lambda graph: graph.initializer.add(name="w", dims=[7], data_type=TensorProto.FLOAT),
    ):
        wrong = ModelProto.FromString(graph.model.SerializeToString())
        damage(wrong.graph)
        with pytest.raises(BlockError, match="is damaged"):
            BlockGraph.from_text(BlockGraph(wrong, "x.onnx").to_text(), "x.onnx")
