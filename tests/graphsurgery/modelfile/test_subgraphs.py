"""What a node reads, subgraphs included, and that the index, renames, activations and TensorRT's view agree on it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import GraphProto, NodeProto, TensorProto, helper

from graphsurgery.graph.index import GraphIndex
from graphsurgery.insertion.activations import upstream
from graphsurgery.modelfile import wire
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.subgraphs import reads, subgraphs
from graphsurgery.tensorrt.view import Origin, View
from tests import models
from tests.models import node, value


def body(
    *nodes: NodeProto, gives: str = "d", inputs: tuple[str, ...] = (), initializer: str = "", sparse: str = ""
) -> GraphProto:
    graph = helper.make_graph(list(nodes), "body", [value(name) for name in inputs], [value(gives)])
    if initializer:
        graph.initializer.append(models.weight(initializer, (1,)))
    if sparse:
        graph.sparse_initializer.add().values.name = sparse
    return graph


def holder(*graphs: GraphProto) -> NodeProto:
    """A node that reads ``flag`` itself, with these subgraphs."""
    return node("If", ["flag", ""], ["y"], "holder", **{f"branch_{i}": graph for i, graph in enumerate(graphs)})


NEG = node("Neg", ["a"], ["d"])
"""reads a, gives d"""
WITHIN: list[tuple[GraphProto, set[str]]] = [
    (body(NEG), {"a"}),
    (body(gives="a"), {"a"}),
    (body(NEG, inputs=("a",)), set()),
    (body(NEG, initializer="a"), set()),
    (body(NEG, sparse="a"), set()),
    (body(node("Exp", ["b"], ["a"]), NEG), {"b"}),
    (body(NEG, node("Exp", ["b"], ["a"])), {"b"}),  # defined below where it is read: still the body's own
    (body(node("Exp", ["a", ""], ["e"]), gives="a"), {"a"}),
    (body(holder(body(NEG)), gives="y"), {"a", "flag"}),
    (body(holder(body(NEG)), gives="y", inputs=("a",)), {"flag"}),
    (body(holder(body(NEG)), gives="y", initializer="flag"), {"a"}),
    (body(holder(body(NEG, inputs=("a",))), node("Exp", ["a"], ["z"]), gives="z"), {"a", "flag"}),
    (body(holder(body(gives="b")), node("Exp", ["a"], ["b"]), gives="y"), {"a", "flag"}),
]


@pytest.mark.parametrize(("graph", "outer"), WITHIN)
def test_scopes(graph: GraphProto, outer: set[str]) -> None:
    assert reads(holder(graph)) == outer | {"flag"}
    assert reads(holder(body(NEG, inputs=("a",)), graph)) == outer | {"flag"}  # each by itself
    listed = node("Choose", ["x"], ["y"], domain="custom", graphs=[body(node("Exp", ["c"], ["d"])), graph])
    assert reads(listed) == outer | {"x", "c"}


@pytest.mark.parametrize(("graph", "outer"), WITHIN)
def test_all_who_ask_get_the_same_answer(graph: GraphProto, outer: set[str]) -> None:
    """``a`` and ``b`` depend on the model's input, and stand behind the node that reads them."""
    made = models.model(
        [holder(graph), node("Relu", ["x"], ["a"]), node("Relu", ["x"], ["b"])],
        [value("x")],
        [value("y")],
        [models.weight("flag", (1,))],
    )
    model = ModelFile.load(made)
    assert {name for name, nodes in GraphIndex(model).consumers.items() if 0 in nodes} == outer | {"flag"}
    part = upstream(model, [("y", TensorProto.FLOAT)]).structure.graph
    assert {name for n in part.node for name in n.output} == (outer - {"flag"}) | {"y"}
    assert View(model).visits[0].own_origin == (Origin.DATA if outer - {"flag"} else Origin.CONSTANT)
    renamed = wire.rename_inputs(made.graph.node[0].SerializeToString(), {b"a": b"A", b"b": b"B", b"flag": b"FLAG"})
    assert reads(NodeProto.FromString(renamed)) == {name.upper() for name in outer | {"flag"}}


def test_every_depth() -> None:
    """As deep as protobuf nests messages."""
    inner = NEG
    for _ in range(30):
        inner = holder(body(inner, gives=inner.output[0]))
    assert reads(inner) == {"a", "flag"}


NAMES = ["a", "b", "c", "d"]
names = st.sampled_from(["", *NAMES])


def graphs(depth: int) -> st.SearchStrategy[GraphProto]:
    some = st.lists(st.sampled_from(NAMES), max_size=1)
    return st.builds(_graph, st.lists(nodes(depth), max_size=3), some, some, some, st.lists(names, max_size=2))


def nodes(depth: int) -> st.SearchStrategy[NodeProto]:
    inner = st.lists(graphs(depth - 1), max_size=2) if depth else st.just([])
    return st.builds(_node, st.lists(names, max_size=2), st.lists(names, max_size=1), inner, st.booleans())


def _graph(
    nodes: list[NodeProto], inputs: list[str], initializers: list[str], sparse: list[str], outputs: list[str]
) -> GraphProto:
    graph = GraphProto(name="g", node=nodes)
    graph.input.extend(value(name) for name in inputs)
    graph.initializer.extend(models.weight(name, (1,)) for name in initializers)
    for name in sparse:
        graph.sparse_initializer.add().values.name = name
    graph.output.extend(value(name) for name in outputs if name)
    return graph


def _node(inputs: list[str], outputs: list[str], inner: list[GraphProto], as_list: bool) -> NodeProto:
    attributes: dict[str, Any] = {"all": inner} if as_list and inner else {f"g{i}": g for i, g in enumerate(inner)}
    return node("Some", inputs, outputs, **attributes)


def outer_reads(proto: NodeProto) -> set[str]:
    """By another way: a name is resolved from the innermost graph outwards, for every place where one is read."""
    found = set(proto.input)
    for graph in subgraphs(proto):
        own = {n for inner in graph.node for n in inner.output} | {each.name for each in graph.input}
        own |= {each.name for each in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
        read = {each.name for each in graph.output}.union(*(outer_reads(inner) for inner in graph.node))
        found |= read - own
    return found - {""}


@given(nodes(3), st.sets(st.sampled_from(NAMES)))
def test_a_rename_agrees_with_the_walk(proto: NodeProto, chosen: set[str]) -> None:
    assert reads(proto) == outer_reads(proto)
    data = proto.SerializeToString()
    names = {name.encode(): f"outer/{name}".encode() for name in chosen}
    renamed = wire.rename_inputs(data, names)
    assert reads(NodeProto.FromString(renamed)) == {f"outer/{n}" if n in chosen else n for n in reads(proto)}
    assert wire.rename_inputs(renamed, {new: old for old, new in names.items()}) == data
