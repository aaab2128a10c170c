"""Recognition of graphs that are no detector, or that nobody should write: an answer each, never an exception."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from graphsurgery.recognition import BlockTree
from graphsurgery.recognition.anatomy import ROLES
from tests.patterns.detector.graphs import HEAD, graph, types
from tests.recognition.recovery import tree_of

SILU = "{0} = Conv <pads = [1,1,1,1]> ({1}, w) {0}g = Sigmoid({0}) {0}y = Mul({0}, {0}g)"
W: dict[str, Any] = {"w": (8, 8, 3, 3)}


def asked(model: ModelProto) -> BlockTree:
    """The blocks of a model, after all questions that selectors and tables ask have had an answer."""
    tree = tree_of(model)
    for role in ROLES:
        tree.role(role)
    for block in tree.everything():
        assert tree.selector(block)
        assert block.nodes
    for position in range(len(model.graph.node)):
        tree.holding(position), tree.innermost(position), tree.role_of(position)
    return tree


def text(inputs: str, body: str, outputs: str = "float[N] y", **weights: tuple[int, ...]) -> ModelProto:
    """A model with these inputs and outputs."""
    model = parser.parse_model(f"{HEAD} g ({inputs}) => ({outputs}) {{ {body} }}")
    for name, shape in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
    return model


def empty() -> ModelProto:
    return text("", "")


def only_initializers() -> ModelProto:
    return text("", "", "float[8] w", w=(8,))


def no_inputs() -> ModelProto:
    return text("", "y = Relu(w)", w=(1, 8, 4, 4))


def no_convolution() -> ModelProto:
    return text("float[1,8] x", "a = MatMul(x, w) y = Relu(a)", w=(8, 8))


def nodes_without_outputs() -> ModelProto:
    model = graph(SILU.format("c", "x") + " y = Relu(cy)", **W)
    model.graph.node.append(helper.make_node("Relu", ["c"], [""]))
    model.graph.node.append(helper.make_node("Sink", ["c"], [], domain="com.microsoft"))
    model.graph.node.append(helper.make_node("Split", ["c"], ["", ""], axis=1))
    return model


def nodes_without_inputs() -> ModelProto:
    model = graph(SILU.format("c", "x") + " y = Relu(cy)", **W)
    model.graph.node.append(helper.make_node("RandomNormal", [], ["r"], shape=[1, 8, 64, 64]))
    model.graph.node.append(helper.make_node("Add", ["r", "c"], ["s"]))
    model.graph.node.append(helper.make_node("Concat", [""], ["k"], axis=1))
    model.graph.node.append(helper.make_node("Conv", ["", ""], ["n"]))
    model.graph.node.append(helper.make_node("Conv", ["x", ""], ["o"]))
    return model


def unknown_operators() -> ModelProto:
    return graph("a = my.domain.Conv(x) b = my.domain.Strange <k = 3> (a, x) y = Relu(b)", **W)


def disconnected() -> ModelProto:
    return graph(f"{SILU.format('c', 'x')} y = Relu(cy) d = Relu(nowhere) e = Conv(d, w)", **W)


def duplicate_node_names() -> ModelProto:
    model = graph(f"{SILU.format('c', 'x')} {SILU.format('d', 'cy')} y = Relu(dy)", **W)
    for node in model.graph.node:
        node.name = "same"
    return model


def text_model() -> ModelProto:
    body = "e = Gather(w, t) n = LayerNormalization(e, s, b) q = MatMul(n, v) a = Softmax(q) y = MatMul(a, v)"
    return text("int64[1,16] t", body, "float[N,L,C] y", w=(100, 8), s=(8,), b=(8,), v=(8, 8))


def one_dimension() -> ModelProto:
    return text(
        "float[1,8,100] x", "c = Conv(x, w) r = Relu(c) p = MaxPool <kernel_shape = [2]> (r) y = Relu(p)", w=(8, 8, 3)
    )


def three_dimensions() -> ModelProto:
    body = "c = Conv <strides = [2,2,2]> (x, w) r = Relu(c) p = AveragePool <kernel_shape = [2,2,2]> (r) y = Conv(p, w)"
    return text("float[1,8,16,64,64] x", body, w=(8, 8, 3, 3, 3))


def sequences() -> ModelProto:
    body = (
        f"{SILU.format('c', 'x')} s = SplitToSequence <axis = 1> (cy, h) a = SequenceAt(s, i) "
        "t = SequenceInsert(s, a) q = SequenceConstruct(a, a) j = ConcatFromSequence <axis = 1> (q) y = Relu(j) "
        "o = Optional(a) g = OptionalGetElement(o)"
    )
    model = graph(body, **W)
    for name, value in (("h", 4), ("i", 0)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    return model


def a_sequence_goes_in() -> ModelProto:
    return text("seq(float[1,8,64,64]) s", "x = SequenceAt(s, i) c = Conv(x, w) y = Relu(c)", i=(), **W)


def a_loop() -> ModelProto:
    body = helper.make_graph(
        [helper.make_node("Relu", ["v"], ["u"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("u", 1, None)],
    )
    model = graph(SILU.format("c", "x"), **W)
    model.graph.node.append(helper.make_node("Loop", ["", "", "cy"], ["y"], body=body))
    return model


ODD: list[Callable[[], ModelProto]] = [
    *(empty, only_initializers, no_inputs, no_convolution, nodes_without_outputs, nodes_without_inputs),
    *(unknown_operators, disconnected, duplicate_node_names, text_model, one_dimension, three_dimensions),
    *(sequences, a_sequence_goes_in, a_loop),
]
NOTHING = (empty, only_initializers, no_inputs, no_convolution, text_model, one_dimension, three_dimensions)
"""models in which no block is to be found"""


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_odd_graphs_have_an_answer(make: Callable[[], ModelProto]) -> None:
    tree = asked(make())
    if make in NOTHING:
        assert types(tree) == []
        assert all(tree.role(role) == [] for role in ROLES)


def test_blocks_beside_odd_nodes_are_found() -> None:
    assert [b.output for b in asked(nodes_without_outputs()).of_type("Conv")] == [
        "cy"
    ]  # what else reads c gives nothing
    assert [b.output for b in asked(duplicate_node_names()).of_type("Conv")] == ["cy", "dy"]
    assert [b.output for b in asked(disconnected()).of_type("Conv")] == ["cy"]


def test_what_nobody_reads_has_no_role() -> None:
    model = graph("a = Conv <strides = [2,2], pads = [1,1,1,1]> (x, w) y = Relu(a) dead = Conv (a, w)", **W)
    tree = asked(model)
    assert tree.role("p1") == ["y"]
    assert not any("dead" in (block.output, *block.entries) for block in tree.everything())


def test_a_cycle_is_left_alone() -> None:
    body = f"{SILU.format('c', 'x')} a = Add(cy, b) {SILU.format('d', 'a')} b = Relu(dy) y = Relu(cy)"
    assert [block.output for block in asked(graph(body, **W)).of_type("Conv")][:1] == ["cy"]


def test_a_thousand_maps_side_by_side() -> None:
    maps = " ".join(f"m{i} = Relu(x)" for i in range(1000))
    started = time.process_time()
    tree = asked(graph(f"{maps} y = Concat <axis = 1> ({', '.join(f'm{i}' for i in range(1000))})"))
    assert types(tree) == ["Concat"]
    assert time.process_time() - started < 5


def test_a_thousand_residual_blocks_in_a_row() -> None:
    nodes, last = [], "x"
    for i in range(1000):
        nodes.append(f"{SILU.format(f'a{i}', last)} {SILU.format(f'b{i}', f'a{i}y')} s{i} = Add({last}, b{i}y)")
        last = f"s{i}"
    tree = asked(graph(f"{' '.join(nodes)} y = Relu({last})", **W))
    assert len(tree.of_type("Bottleneck")) == 1000


def test_five_thousand_convolutions_and_shortcuts() -> None:
    nodes, last = [], "x"
    for i in range(5000):
        nodes.append(f"c{i} = Conv <pads = [1,1,1,1]> ({last}, w) s{i} = Add(c{i}, {last})")
        last = f"s{i}"
    tree = asked(graph(f"{' '.join(nodes)} y = Relu({last})", **W))
    assert len(tree.of_type("Conv")) == 5000


def c2f(split: str) -> ModelProto:
    body = (
        f"{SILU.format('c', 'x').replace('w)', 'p)').replace('[1,1,1,1]', '[0,0,0,0]')} {split} "
        f"{SILU.format('d', 'b')} {SILU.format('e', 'dy')} s = Add(b, ey) k = Concat <axis = 1> (a, b, s) "
        "f = Conv(k, q) g = Sigmoid(f) y = Mul(f, g)"
    )
    model = graph(body, w=(4, 4, 3, 3), p=(8, 8, 1, 1), q=(8, 12, 1, 1))
    for name, values in {
        "z": [0],
        "h": [4],
        "t": [3],
        "m": [2**63 - 1],
        "n": [-1],
        "o": [1],
        "two": [2],
        "six": [6],
        "eight": [8],
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    for name, sizes in {"even": [4, 4], "uneven": [3, 5]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
    return model


@pytest.mark.parametrize(
    ("split", "is_one"),
    [
        ("a, b = Split <axis = 1> (cy, even)", True),
        ("a, b = Split <axis = -3> (cy, even)", True),
        ("a, b = Split <axis = 1> (cy, uneven)", False),
        ("a, b = Split <axis = 2> (cy, even)", False),
        ("a, b, r = Split <axis = 1, num_outputs = 3> (cy)", False),
        ("a = Slice(cy, z, h, o) b = Slice(cy, h, m, o)", True),
        ("a = Slice(cy, z, h, o) b = Slice(cy, t, m, o)", False),
        ("a = Slice(cy, z, h, n) b = Slice(cy, h, m, n)", False),
        ("a = Slice(cy, z, h, o) b = Slice(cy, h, six, o)", False),
        ("a = Slice(cy, z, h, o) b = Slice(cy, h, eight, o)", True),
        ("parts = SplitToSequence <axis = 1> (cy, even) a = SequenceAt(parts, z) b = SequenceAt(parts, o)", True),
        ("parts = SplitToSequence <axis = 2> (cy, even) a = SequenceAt(parts, z) b = SequenceAt(parts, o)", False),
        ("parts = SplitToSequence <axis = 1> (cy, even) a = SequenceAt(parts, o) b = SequenceAt(parts, z)", False),
        ("a = Slice(cy, z, h, o, two) b = Slice(cy, h, m, o, two)", False),
        ("i = Shape(cy) l = Gather(i, o) j = Div(l, two) a = Slice(cy, z, j, o) b = Slice(cy, j, l, o)", True),
    ],
)
def test_halves_are_halves_of_the_channels(split: str, is_one: bool) -> None:
    assert bool(asked(c2f(split)).of_type("C2f")) == is_one


def test_negative_axes_of_a_slice_in_steps() -> None:
    model = graph("s = Slice(x, z, m, a, t) c = Conv <pads = [1,1,1,1]> (s, w) y = Relu(c)", **W)
    for name, values in {"z": [0, 0], "m": [2**63 - 1] * 2, "a": [-2, -1], "t": [2, 2]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    tree = asked(model)
    assert tree.stride("y") == 2


def test_convolutions_that_share_a_weight_are_two() -> None:
    assert len(asked(graph(f"{SILU.format('c', 'x')} {SILU.format('d', 'cy')} y = Relu(dy)", **W)).of_type("Conv")) == 2


def test_several_images() -> None:
    body = f"{SILU.format('c', 'x')} {SILU.format('d', 'z')} k = Concat <axis = 1> (cy, dy) y = Relu(k)"
    tree = asked(text("float[1,8,64,64] x, float[1,8,64,64] z", body, **W))
    assert types(tree) == ["Conv", "Conv", "Concat"]
    assert tree.stride("k") == 1


def test_the_head_in_an_if() -> None:
    """What stands in a branch is not looked into; what is in front of it is found, and read by the If."""
    branch = helper.make_graph(
        [helper.make_node("Conv", ["cy", "w"], ["o"], pads=[1, 1, 1, 1])],
        "branch",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )
    model = graph(SILU.format("c", "x"), **W)
    model.graph.node.append(helper.make_node("If", ["really"], ["y"], then_branch=branch, else_branch=branch))
    model.graph.input.append(helper.make_tensor_value_info("really", TensorProto.BOOL, []))
    tree = asked(model)
    assert [block.output for block in tree.of_type("Conv")] == ["cy"]
    assert not tree.is_map("y")


def test_a_model_of_another_rank_has_no_strides() -> None:
    assert asked(three_dimensions()).stride("r") is None


def test_quantised_to_floats_of_8_bits() -> None:
    model = graph(
        "c = Conv <pads = [1,1,1,1]> (x, w) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z) y = Relu(d)",
        s=(),
        **W,
    )
    model.graph.initializer.add(name="z", data_type=TensorProto.FLOAT8E4M3FN, raw_data=b"\0")
    assert [block.facts["activation"] for block in asked(model).of_type("Conv")] == ["relu"]


def test_weights_that_are_not_there() -> None:
    model = graph(SILU.format("c", "x") + " y = Relu(cy)", **W)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="gone.bin")
    assert types(asked(model))[:1] == ["Conv"]
