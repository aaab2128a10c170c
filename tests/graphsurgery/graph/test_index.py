from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphsurgery
from graphsurgery.graph.index import GraphIndex
from graphsurgery.modelfile.model import ModelFile
from tests import models
from tests.counting import calls
from tests.models import node, value


def index(made: models.ModelProto) -> GraphIndex:
    return GraphIndex(ModelFile.load(made))


def test_producers_and_consumers() -> None:
    made = models.model(
        [
            node("Relu", ["x"], ["a"], "r"),
            node("Mul", ["a", "a"], ["b"], "m"),
            node("Clip", ["b", "", "a"], ["y"], "c"),
        ],
        [value("x")],
        [value("y")],
    )
    found = index(made)
    assert found.producer == {"a": 0, "b": 1, "y": 2}
    assert found.consumers == {"x": [0], "a": [1, 2], "b": [2]}
    assert list(found.inputs) == ["x"]
    assert list(found.outputs) == ["y"]


def test_blank_outputs_are_no_tensors() -> None:
    made = models.model([node("Dropout", ["x"], ["y", ""])], [value("x")], [value("y")])
    assert "" not in index(made).producer


def test_captures_of_nested_subgraphs_are_reads() -> None:
    found = index(models.with_if(shadowed=True))
    assert found.consumers["site"] == [1]  # the If, once; not the Loop, whose body has a `site` of its own
    assert found.consumers["flag"] == [1]
    assert found.consumers["r"] == [2]
    assert found.consumers["trips"] == [2]
    inner = {"n", "d", "p", "q", "go", "i", "next"}
    assert not inner & set(found.consumers)


def test_a_capture_two_levels_down_is_a_read_of_the_outermost_node() -> None:
    deep = helper.make_graph([node("Neg", ["a"], ["d"])], "deep", [], [value("d")])
    middle = helper.make_graph([node("If", ["f"], ["m"], then_branch=deep, else_branch=deep)], "mid", [], [value("m")])
    made = models.model(
        [node("Relu", ["x"], ["a"]), node("If", ["f"], ["y"], then_branch=middle, else_branch=middle)],
        [value("x")],
        [value("y")],
        [numpy_helper.from_array(np.array(True), "f")],
    )
    assert index(made).consumers == {"x": [0], "a": [1], "f": [1]}


def test_subgraphs_of_custom_operators_count() -> None:
    body = helper.make_graph([node("Neg", ["a"], ["d"])], "body", [], [value("d")])
    custom = node("Repeat", ["x"], ["y"], domain="custom", body=body)
    several = node("Choose", ["x"], ["z"], domain="custom", bodies=[body, body])
    made = models.model([node("Relu", ["x"], ["a"]), custom, several], [value("x")], [value("y")])
    assert index(made).consumers["a"] == [1, 2]


def test_a_subgraph_that_gives_an_outer_tensor_reads_it() -> None:
    straight = helper.make_graph([], "straight", [], [value("a")])
    made = models.model(
        [node("Relu", ["x"], ["a"]), node("If", ["f"], ["y"], then_branch=straight, else_branch=straight)],
        [value("x"), value("f", [], TensorProto.BOOL)],
        [value("y")],
    )
    assert index(made).consumers["a"] == [1]


def test_constants() -> None:
    found = index(models.kitchen_sink())
    assert found.is_constant("w")
    assert found.is_constant("table")
    assert found.is_constant("optional")
    assert not found.is_constant("x")
    assert not found.is_constant("site")


def test_what_depends_on_the_input_is_active() -> None:
    made = models.model(
        [
            node("Neg", ["w"], ["folded"]),
            node("Relu", ["x"], ["a"]),
            node("Add", ["a", "folded"], ["b"]),
            node("RandomNormal", [], ["noise"], shape=[1]),
            node("Shape", ["b"], ["s"]),
            node("Identity", ["noise"], ["n"]),
        ],
        [value("x")],
        [value("b")],
        [models.weight("w", (1,))],
    )
    assert index(made).active == {1, 2, 4}
    del made.graph.input[:]
    made.graph.input.append(value("w", (1,)))  # an input with a default is a weight
    assert index(made).active == set()


def test_unsorted_nodes_are_active_all_the_same() -> None:
    """As Ultralytics leaves them when it converts to half precision."""
    made = models.chain("Relu", "Neg", "Abs", "Exp")
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend(reversed(nodes))
    assert index(made).active == {0, 1, 2, 3}


def test_labels_and_names() -> None:
    made = models.kitchen_sink()
    made.graph.node[6].name = ""
    found = index(made)
    assert found.label(0) == "table_node"
    assert found.label(6) == "Add#6"
    assert found.node_names["same"] == [2, 3]
    assert "" not in found.node_names


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "y",
        "w",
        "site",
        "same",
        "table_node",
        "nothing",
        "sparse",
        "b0",
        "inner",
        "v_in",
        "c_out",
        "flag",
        "a",
        "b",
    ],
)
def test_every_name_is_taken(name: str) -> None:
    """Inputs, outputs, initializers, value_info, sparse initializers, nodes; all of it in subgraphs and functions."""
    assert name in index(models.kitchen_sink()).names


def test_twenty_thousand_nodes() -> None:
    """In one pass and without recursion; a hundred insertions cost about what one does."""
    made = models.chain(*["Relu"] * 20_000)
    for i, proto in enumerate(made.graph.node):
        proto.name = f"/model.{i // 100}/m.{i % 100}/Relu"
    data = made.SerializeToString()
    tensors, modules = [f"tensor:t{i}" for i in range(0, 20_000, 200)], [f"/model.{i}" for i in range(100)]
    one, cost = calls(lambda: graphsurgery.insert(data, "simam", after="/model.150"))
    by_tensor, by_tensor_cost = calls(lambda: graphsurgery.insert(data, "simam", after=tensors))
    many, many_cost = calls(lambda: graphsurgery.insert(data, "simam", after=modules))
    assert max(by_tensor_cost, many_cost) < 2 * cost
    assert len(by_tensor.insertions()) == len(many.insertions()) == 100
    graph = many.proto().graph
    produced = {"x", *(tensor.name for tensor in graph.initializer)}
    for proto in graph.node:
        assert produced.issuperset(proto.input)
        produced.update(proto.output)
    assert graphsurgery.remove(many.to_bytes()).to_bytes() == data
    assert graphsurgery.remove(one.to_bytes()).to_bytes() == data


def test_ancestors_come_in_order_whatever_the_order_of_the_file() -> None:
    made = models.chain(*["Relu"] * 6)
    made.graph.node.extend([made.graph.node.pop(i) for i in (1, 3, 0)])
    found = index(made)
    order = found.ancestors("t4")
    names = [found.nodes[position].output[0] for position in order]
    assert names == sorted(names)
    assert len(names) == 5
