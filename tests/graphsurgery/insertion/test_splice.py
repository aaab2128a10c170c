from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

import graphsurgery
from graphsurgery.api import carry_out
from graphsurgery.errors import BlockError, GraphSurgeryError, InsertionError, ModelError, SiteError
from graphsurgery.insertion import removal
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.request import Request
from graphsurgery.userblocks.inserted import weights_of
from tests import models
from tests.models import node, value

NODE, NAME, INITIALIZER, OUTPUT, VALUE_INFO = (
    GraphProto.DESCRIPTOR.fields_by_name[name].number
    for name in ("node", "name", "initializer", "output", "value_info")
)
GRAPH, METADATA = (ModelProto.DESCRIPTOR.fields_by_name[name].number for name in ("graph", "metadata_props"))

IDENTITIES: list[dict[str, Any]] = [
    {"module": "simam", "gate": "residual"},
    {"module": "se", "init": "identity", "settings": {"reduction": 2}},
    {"module": "se", "gate": "residual", "settings": {"reduction": 2, "bias": False}},
    {"module": "ge", "gate": "residual", "settings": {"extent": 2}},
    {"module": "ge[theta]", "init": "identity", "settings": {"extent": 2}},
    {"module": "ge[theta-plus]", "init": "identity"},
    {"module": "nam", "init": "identity"},
    {"module": "nam[channel+spatial]", "init": "identity"},
]
"""requests that leave a model's output as it is, bit by bit"""


def insert(model: Any, after: str | Sequence[str], module: str = "simam", **arguments: Any) -> ModelFile:
    """An insertion that every promise is checked for."""
    before = ModelFile.load(model)
    edited = graphsurgery.insert(before, module, after=after, **arguments)
    check(before, edited)
    assert ModelFile.load(edited.to_bytes()).insertions() == edited.insertions()
    return edited


def check(before: ModelFile, after: ModelFile) -> None:
    """Valid; the same inputs and outputs; what is not new and reads no new tensor has its bytes and its place."""
    old, new = before.to_bytes(), after.to_bytes()
    models.valid(new)
    insertions = [*before.insertions(), *after.insertions()]
    names = {name for insertion in insertions for name in insertion.nodes}
    renamed = {i.output_tensor for i in insertions} | {i.site.tensor for i in insertions}
    left = _without_records(old), _without_records(new)
    assert left[0] == left[1]
    kept_old = [n for n in models.nodes_of(old) if NodeProto.FromString(n).name not in names]
    kept_new = [n for n in models.nodes_of(new) if NodeProto.FromString(n).name not in names]
    assert len(kept_old) == len(kept_new)
    for a, b in zip(kept_old, kept_new, strict=True):
        if a != b:
            assert _differ_by_names(NodeProto.FromString(a), NodeProto.FromString(b), renamed)
    own = {tensor for i in insertions for tensor in (*i.initializers, *i.value_info)}
    graph = ModelProto.FromString(new).graph
    declared = {v.name for v in (*graph.value_info, *graph.input, *graph.output)}
    produced = {name for n in graph.node for name in n.output}
    introduced = {name for insertion in insertions for name in insertion.value_info}
    assert introduced & produced <= declared
    assert {v.name for v in graph.value_info} & introduced <= produced
    assert {insertion.output_tensor for insertion in after.insertions()} <= declared
    claimed = [name for insertion in after.insertions() for name in insertion.value_info]
    assert sorted(claimed) == sorted(introduced & produced)
    for (number, rest_old), rest_new in zip(_rest(old, own).items(), _rest(new, own).values(), strict=True):
        assert rest_old == rest_new, number


def _without_records(data: bytes) -> list[models.Part]:
    return [
        part
        for part in models.parts(data)
        if part.number != GRAPH and not (part.number == METADATA and b"graphsurgery.insertion." in part.content[:40])
    ]


def _rest(data: bytes, own: set[str]) -> dict[int, list[bytes]]:
    """The fields of the graph but for its nodes, without the insertions' own tensors, by number and in order."""
    table: dict[int, list[bytes]] = {INITIALIZER: [], VALUE_INFO: []}
    for part in models.parts(models.graph_of(data)):
        if part.number == INITIALIZER and TensorProto.FromString(part.content).name in own:
            continue
        if part.number == VALUE_INFO and onnx.ValueInfoProto.FromString(part.content).name in own:
            continue
        if part.number != NODE:
            table.setdefault(part.number, []).append(part.content)
    return dict(sorted(table.items()))


def _differ_by_names(a: NodeProto, b: NodeProto, names: set[str]) -> bool:
    """Whether two nodes are the same but for tensors called otherwise, in subgraphs too."""
    for old, new in ((a.input, b.input), (a.output, b.output)):
        if len(old) != len(new) or any(x != y and not {x, y} & names for x, y in zip(old, new, strict=True)):
            return False
        del old[:], new[:]
    for old_graph, new_graph in zip(models.captured_graphs(a), models.captured_graphs(b), strict=True):
        for x, y in zip(old_graph.node, new_graph.node, strict=True):
            if not _differ_by_names(x, y, names):
                return False
        for value_old, value_new in zip(old_graph.output, new_graph.output, strict=True):
            if value_old.name != value_new.name and value_new.name in names:
                value_new.name = value_old.name
        del old_graph.node[:], new_graph.node[:]
    return bool(a == b)


def same_outputs(a: bytes, b: bytes) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(models.run(a), models.run(b), strict=True))


def inputs_of(model: ModelFile, name: str) -> list[str]:
    return next(list(n.input) for n in model.proto().graph.node if n.name == name)


# ---------------------------------------------------------------------- one insertion


def test_one_insertion_in_full() -> None:
    edited = insert(models.detector(), "/model.2", "se", settings={"reduction": 4})
    graph = edited.proto().graph
    names = [n.name for n in graph.node]
    place = names.index("/model.2/act/Mul") + 1
    assert names[place : place + 6] == [
        *("/model.2/se/ReduceMean", "/model.2/se/Conv", "/model.2/se/Relu"),
        *("/model.2/se/Conv_1", "/model.2/se/Sigmoid", "/model.2/se/Mul"),
    ]
    assert names[place + 6] == "/model.3/m/MaxPool"
    assert [t.name for t in graph.initializer][-4:] == [
        f"model.2.se.fc{i}.{p}" for i in (1, 2) for p in ("weight", "bias")
    ]
    assert inputs_of(edited, "/model.2/se/ReduceMean") == ["/model.2/act/Mul_output_0"]
    assert inputs_of(edited, "/model.3/m/MaxPool") == ["/model.2/se/Mul_output_0"]
    assert inputs_of(edited, "/model.3/Concat")[0] == "/model.2/se/Mul_output_0"
    assert graph.value_info[-1] == value("/model.2/se/Mul_output_0", (1, 16, 8, 8))
    (insertion,) = edited.insertions()
    assert insertion.id == "model.2.se"
    assert insertion.nodes == tuple(names[place : place + 6])
    assert insertion.site.consumers == ("/model.3/m/MaxPool", "/model.3/Concat")
    assert insertion.parameters == 16 * 4 * 2 + 4 + 16


def test_what_the_block_computes_is_what_consumers_see() -> None:
    """Against numpy, so that neither the template nor the splice is its own judge."""
    made = models.chain("Relu", "Neg")
    (y,) = models.run(insert(made, "tensor:t0", "nam").to_bytes())
    (x,) = models.run(made.SerializeToString())
    x = -x
    assert np.allclose(-y, x / (1 + np.exp(-x / np.sqrt(1 + 1e-5) / 4)), atol=1e-6)


@pytest.mark.parametrize("request_", IDENTITIES, ids=lambda r: r["module"])
@pytest.mark.parametrize("style", ["torchscript", "dynamo", "namespace"])
def test_an_identity_changes_nothing(style: str, request_: dict[str, Any]) -> None:
    data = models.detector(style=style).SerializeToString()
    edited = insert(data, ["/model.0", "/model.2"], **request_)
    assert same_outputs(edited.to_bytes(), data)
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


@pytest.mark.parametrize("opset", range(9, 27))
def test_every_opset(opset: int) -> None:
    ir_version = max(3, min(10, helper.find_min_ir_version_for([helper.make_opsetid("", opset)], ignore_unknown=True)))
    data = models.detector(opset=opset, ir_version=ir_version).SerializeToString()
    edited = ModelFile.load(data)
    for request in (IDENTITIES[0], IDENTITIES[1], IDENTITIES[4]):
        edited = insert(edited, "/model.2", **request)
    assert edited.opset == opset
    assert edited.structure.ir_version == ir_version
    assert same_outputs(edited.to_bytes(), data)
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


@pytest.mark.parametrize("opset", [1, 6, 8])
def test_older_opsets_are_refused(opset: int) -> None:
    with pytest.raises(BlockError, match=f"the model uses opset {opset}; blocks can be put into models of opset 9"):
        graphsurgery.insert(models.chain("Relu", "Relu", opset=opset, ir_version=3), "simam", after="tensor:x")


def test_ir_3_has_no_initializers_that_are_not_inputs() -> None:
    data = models.detector(opset=9, ir_version=3).SerializeToString()
    edited = insert(data, "/model.2", "se", settings={"reduction": 4})
    before, after = ModelProto.FromString(data).graph, edited.proto().graph
    assert after.input == before.input
    assert after.initializer == before.initializer
    assert [n.op_type for n in after.node if n.name.startswith("/model.2/se/Constant")] == ["Constant"] * 4
    assert set(weights_of(edited.insertions()[0], edited)) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("module", ["simam", "se", "ge[theta]", "nam"])
def test_constants_are_of_the_type_of_the_site(dtype: str, module: str) -> None:
    arguments = {"settings": {"reduction": 4}} if module == "se" else {}
    edited = insert(models.detector(dtype=np.dtype(dtype)), "/model.2", module, precision="site", **arguments)
    own = set(edited.insertions()[0].initializers)
    kinds = {
        t.data_type for t in edited.proto().graph.initializer if t.name in own and t.data_type != TensorProto.INT64
    }
    assert kinds == {helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}


def test_bfloat16() -> None:
    made = models.chain("Relu", "Neg", opset=22, ir_version=10)
    for declared in (*made.graph.input, *made.graph.output):
        declared.type.tensor_type.elem_type = TensorProto.BFLOAT16
    edited = insert(made, "tensor:t0", "se", settings={"reduction": 2})
    own = set(edited.insertions()[0].initializers)
    assert {t.data_type for t in edited.proto().graph.initializer if t.name in own} >= {TensorProto.BFLOAT16}


def test_the_given_model_stays_as_it_is() -> None:
    model = ModelFile.load(models.detector())
    before = model.to_bytes()
    graphsurgery.insert(model, "simam", after="/model.2")
    assert model.to_bytes() == before
    assert model.insertions() == []


# ---------------------------------------------------------------------- sites of every kind


def test_a_graph_output_keeps_its_name_and_its_readers_see_the_block() -> None:
    made = models.model(
        [
            node("Relu", ["x"], ["a"], "relu"),
            node("Neg", ["a"], ["b"], "neg"),
            node("Add", ["a", "b"], ["c"], "add"),
        ],
        [value("x")],
        [value("a"), value("c")],
    )
    data = made.SerializeToString()
    edited = insert(data, "tensor:a")
    graph = edited.proto().graph
    assert [o.name for o in graph.output] == ["a", "c"]
    assert graph.node[0].output == ["a_before"]
    assert graph.node[-3].output == ["a"]
    assert inputs_of(edited, "neg") == inputs_of(edited, "add")[:1] == ["a"]
    assert edited.insertions()[0].output_tensor == "a"
    outputs = models.run(edited.to_bytes())
    assert not np.array_equal(outputs[0], models.run(data)[0])
    assert np.array_equal(outputs[1], outputs[0] - outputs[0])
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


def test_a_block_that_becomes_an_output_comes_before_one_for_more_consumers() -> None:
    made = models.model(
        [node("Relu", ["x"], ["a"], "/m.0/R"), *(node("Neg", ["a"], [f"y{i}"], f"/m.{i}/N") for i in (1, 2))],
        [value("x")],
        [value("a"), value("y1"), value("y2")],
    )
    requests = [
        Request("nam", ("tensor:a",), consumers=("/m.1", "/m.2")),
        Request("simam", ("tensor:a",), consumers=("output:a",)),
    ]
    edited, done = carry_out(ModelFile.load(made), requests)
    check(ModelFile.load(made), edited)
    output, others = (each.insertion for each in done)
    assert (output.module, output.site.tensor, output.output_tensor) == ("simam", "a_before", "a")
    assert (others.module, others.site.tensor) == ("nam[channel]", "a_before")
    assert inputs_of(edited, "/m.1/N") == inputs_of(edited, "/m.2/N") == [others.output_tensor]
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == made.SerializeToString()


def test_a_chain_at_a_graph_output_in_one_call_and_in_several() -> None:
    data = models.detector().SerializeToString()
    once, _ = carry_out(
        ModelFile.load(data), [Request(r, ("tensor:boxes",), gate="residual") for r in ("simam", "nam", "simam")]
    )
    several = ModelFile.load(data)
    for module in ("simam", "nam", "simam"):
        several = insert(several, "tensor:boxes", module, gate="residual")
    assert once.to_bytes() == several.to_bytes()
    assert same_outputs(once.to_bytes(), data)
    ids = [i.id for i in once.insertions()]
    assert ids == ["model.simam", "model.nam", "model.simam_1"]
    for order in permutations(ids):
        model = ModelFile.load(once.to_bytes())
        for name in order:
            before, model = model, removal.remove(model, [name])
            check(before, model)
            assert same_outputs(model.to_bytes(), data)
        assert model.to_bytes() == data


@pytest.mark.parametrize("site", ["/model.0", "/model.2", "tensor:images", "tensor:scores_in"])
def test_a_chain_in_one_call_is_a_chain_in_several(site: str) -> None:
    made = models.detector()
    made.graph.node[-2].output[0] = made.graph.node[-1].input[0] = "scores_in"
    data = made.SerializeToString()
    requests = [Request("simam", (site,)), Request("nam", (site,)), Request("simam", (site,), {"e_lambda": 0.1})]
    once, done = carry_out(ModelFile.load(data), requests)
    check(ModelFile.load(data), once)
    several = ModelFile.load(data)
    for request in requests:
        after = several.insertions()[-1].output_tensor if several.insertions() else ""
        at = site if site.startswith("/") or not after else f"tensor:{after}"
        several = insert(several, at, request.module, settings=request.settings)
    assert same_outputs(once.to_bytes(), several.to_bytes())
    assert [d.insertion.module for d in done] == ["simam", "nam[channel]", "simam"]
    if site.startswith("/"):
        assert once.to_bytes() == several.to_bytes()


def test_an_order_of_blocks_is_the_order_of_the_request() -> None:
    made = models.chain("Relu", "Neg")
    edited, _ = carry_out(ModelFile.load(made), [Request("nam", ("tensor:t0",)), Request("simam", ("tensor:t0",))])
    first, second = edited.insertions()
    assert (first.site.tensor, second.site.tensor) == ("t0", first.output_tensor)
    assert inputs_of(edited, "n1") == [second.output_tensor]


def test_a_site_that_branches_of_an_if_capture() -> None:
    data = models.with_if(shadowed=True).SerializeToString()
    edited = insert(data, "tensor:site", "se", init="identity", settings={"reduction": 2})
    graph = edited.proto().graph
    branch = next(n for n in graph.node if n.name == "branch")
    loop = next(n for n in graph.node if n.name == "loop")
    new = edited.insertions()[0].output_tensor
    assert b"site" not in branch.SerializeToString()
    assert branch.SerializeToString().count(new.encode()) == 4
    assert loop.SerializeToString() in models.nodes_of(data)  # its `site` is its own
    assert same_outputs(edited.to_bytes(), data)
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


def test_a_captured_site_that_is_a_graph_output() -> None:
    made = models.with_if()
    made.graph.output.append(value("site"))
    data = made.SerializeToString()
    edited = insert(data, "tensor:site", gate="residual")
    assert next(n for n in edited.proto().graph.node if n.name == "branch").SerializeToString() in models.nodes_of(data)
    assert same_outputs(edited.to_bytes(), data)
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


def test_a_branch_that_hands_the_site_through() -> None:
    straight = helper.make_graph([node("Identity", ["site"], ["o"])], "straight", [], [value("o")])
    made = models.with_if()
    made.graph.node[1].attribute[1].g.CopyFrom(straight)
    assert "simam" in str(insert(made, "tensor:site").proto().graph.node[-2])


def test_a_site_that_one_node_reads_twice() -> None:
    made = models.model(
        [node("Relu", ["x"], ["a"]), node("Mul", ["a", "a"], ["y"], "twice")], [value("x")], [value("y")]
    )
    edited = insert(made, "tensor:a")
    assert inputs_of(edited, "twice") == [edited.insertions()[0].output_tensor] * 2
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == made.SerializeToString()


def test_two_sites_that_one_node_reads() -> None:
    made = models.model(
        [node("Relu", ["x"], ["a"]), node("Neg", ["x"], ["b"]), node("Add", ["a", "b"], ["y"], "both")],
        [value("x")],
        [value("y")],
    )
    edited = insert(made, ["tensor:a", "tensor:b"])
    assert inputs_of(edited, "both") == [i.output_tensor for i in edited.insertions()]
    half = graphsurgery.remove(edited.to_bytes(), "simam")
    assert inputs_of(half, "both") == ["a", "/simam_1/Mul_1_output_0"]
    assert graphsurgery.remove(half.to_bytes()).to_bytes() == made.SerializeToString()


def test_a_site_that_nothing_reads() -> None:
    made = models.chain("Relu", "Neg")
    made.graph.node.append(node("Abs", ["x"], ["nowhere"], "end"))
    data = made.SerializeToString()
    edited = insert(data, "tensor:nowhere", "se", settings={"reduction": 2})
    edited = insert(edited, f"tensor:{edited.insertions()[0].output_tensor}")
    for name in ("se", "se.simam"):
        one = graphsurgery.remove(edited.to_bytes(), name)
        check(edited, one)
        assert graphsurgery.remove(one.to_bytes()).to_bytes() == data
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


def test_an_input_of_the_model() -> None:
    data = models.detector().SerializeToString()
    edited = insert(data, "tensor:images")
    assert edited.proto().graph.node[0].name == "/simam/InstanceNormalization"
    assert inputs_of(edited, "/model.0/conv/Conv")[0] == "/simam/Mul_1_output_0"
    assert edited.proto().graph.input == models.detector().graph.input
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


def test_an_input_that_is_an_output_is_refused() -> None:
    made = models.chain("Relu")
    made.graph.output.append(value("x"))
    with pytest.raises(SiteError, match="'x' is an input and an output of the model at once"):
        graphsurgery.insert(made, "simam", after="tensor:x")


def test_in_front_of_and_behind_an_earlier_block() -> None:
    """Later blocks may be put on either side of an earlier one, and each can be taken out on its own."""
    data = models.detector().SerializeToString()
    first = insert(data, "/model.2", "se", settings={"reduction": 4}, init="identity")
    edited = insert(first, f"tensor:{first.insertions()[0].site.tensor}", "nam", init="identity")
    edited = insert(edited, "/model.2", "simam", gate="residual")
    by_id = {i.id: i for i in edited.insertions()}
    assert by_id["model.2.se"].site.tensor == by_id["model.2.act.nam"].output_tensor
    assert by_id["model.2.simam"].site.tensor == by_id["model.2.se"].output_tensor
    assert same_outputs(edited.to_bytes(), data)
    for order in permutations(by_id):
        model = ModelFile.load(edited.to_bytes())
        for name in order:
            model = graphsurgery.remove(model, name)
            models.valid(model.to_bytes())
        assert model.to_bytes() == data


def test_inside_an_earlier_block_is_refused() -> None:
    edited = insert(models.detector(), "/model.2", "nam")
    for selector in ("node:/model.2/nam/Sigmoid", "tensor:/model.2/nam/BatchNormalization_output_0"):
        with pytest.raises(SiteError, match=r"inside the insertion model\.2\.nam"):
            graphsurgery.insert(edited, "simam", after=selector)


def test_unsorted_nodes() -> None:
    made = onnx.shape_inference.infer_shapes(models.chain("Relu", "Neg", "Abs"))
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([nodes[2], nodes[0], nodes[1]])
    data = made.SerializeToString()
    edited = graphsurgery.insert(data, "nam", after=["tensor:t0", "tensor:t1"], init="identity")
    assert same_outputs(edited.to_bytes(), data)
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


def test_the_kitchen_sink() -> None:
    data = models.kitchen_sink(runnable=True).SerializeToString()
    edited = insert(data, ["/model.0", "tensor:y", "tensor:z", "tensor:x"], "nam", init="identity")
    edited = insert(edited, ["/model.0", "tensor:y", "tensor:t3"], "simam", gate="residual")
    assert same_outputs(edited.to_bytes(), data)
    half = graphsurgery.remove(edited.to_bytes(), [i.id for i in edited.insertions()][::2])
    check(edited, half)
    assert same_outputs(half.to_bytes(), data)
    assert graphsurgery.remove(half.to_bytes()).to_bytes() == data
    insert(models.kitchen_sink(), "/model.0", "nam")  # with the two nodes of one name


def test_local_functions_may_make_and_read_the_site() -> None:
    data = models.kitchen_sink(runnable=True).SerializeToString()
    edited = insert(data, "tensor:t3", "nam", init="identity")
    readers = [n for n in edited.proto().graph.node if "/nam/Mul_output_0" in n.input]
    assert [(n.op_type, n.overload) for n in readers] == [("Twice", "scaled")]
    assert same_outputs(edited.to_bytes(), data)


def test_metadata_of_the_exporter_is_carried_on() -> None:
    edited = insert(models.detector(style="dynamo"), "model.2", "nam")
    (new,) = {n.metadata_props[0].value for n in edited.proto().graph.node if n.op_type == "BatchNormalization"}
    assert new == "['', 'model', 'model.2', 'model.2.nam', 'batchnormalization']"
    again = insert(edited, "model.2.nam", "simam", gate="residual")
    assert [i.id for i in again.insertions()] == ["model.2.nam", "model.2.nam.simam"] or [
        i.id for i in again.insertions()
    ] == ["model.2.nam", "model.2.simam"]


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "where",
    ["tensor", "node", "initializer", "output", "value_info", "subgraph", "function", "initializer of a subgraph"],
)
@pytest.mark.parametrize(
    "name", ["/model.2/se/Mul", "/model.2/se/Mul_output_0", "model.2.se.fc1.weight", "/model.2/se/Sigmoid"]
)
def test_names_that_are_taken_are_left_alone(name: str, where: str) -> None:
    made = models.detector()
    graph = made.graph
    if where == "tensor":
        graph.node.append(node("Neg", ["images"], [name], "clash"))
    elif where == "node":
        graph.node.append(node("Neg", ["images"], ["clash"], name))
    elif where == "initializer":
        graph.initializer.append(models.weight(name, (1,)))
    elif where == "output":
        graph.node.append(node("Neg", ["images"], [name], "clash"))
        graph.output.append(value(name, (1, 3, 32, 32)))
    elif where == "value_info":
        graph.value_info.append(value(name))
    elif "subgraph" in where:
        inside = helper.make_graph([node("Neg", ["images"], [name], name)], "g", [], [value(name, None)])
        if where.startswith("initializer"):
            inside = helper.make_graph(
                [node("Neg", [name], ["o"])], "g", [], [value("o", None)], [models.weight(name, (1,))]
            )
        graph.node.append(node("If", ["flag"], ["clash"], "if", then_branch=inside, else_branch=inside))
        graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
    else:
        made.functions.append(
            helper.make_function("local", "F", ["a"], ["b"], [node("Neg", ["a"], ["b"], name)], made.opset_import)
        )
        made.opset_import.add(domain="local", version=1)
    data = made.SerializeToString()
    edited = insert(data, "/model.2", "se", settings={"reduction": 4}, init="identity")
    after = edited.proto()
    own = [n for i in edited.insertions() for n in (*i.nodes, *i.initializers, i.output_tensor)]
    assert name not in own
    tensors = [*(t.name for t in after.graph.initializer), *(o for n in after.graph.node for o in n.output)]
    assert len(tensors) == len(set(tensors))
    assert same_outputs(edited.to_bytes(), data)
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


def test_the_new_name_of_an_output_may_be_taken() -> None:
    made = models.chain("Relu", "Neg", "Abs")
    for i, name in enumerate(("y_before", "y_before_1")):
        made.graph.node[i].output[0] = made.graph.node[i + 1].input[0] = name
    edited = insert(made, "tensor:y", "nam")
    assert [list(n.output) for n in edited.proto().graph.node][2] == ["y_before_2"]
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == made.SerializeToString()


def test_a_module_of_the_same_name_keeps_its_own() -> None:
    """The model has a module model.2.se already: the new one is model.2.se_1, in nodes, weights and id."""
    made = models.detector()
    made.graph.node.insert(0, node("Relu", ["images"], ["other"], "/model.2/se/Relu"))
    edited = insert(made, "/model.2/act", "se", settings={"reduction": 4})
    edited = insert(edited, "/model.2/act", "se", settings={"reduction": 4})
    assert [i.id for i in edited.insertions()] == ["model.2.act.se", "model.2.act.se_1"]
    made.graph.node[0].name = "/model.2/act/se/Relu"
    (insertion,) = insert(made, "tensor:/model.2/act/Mul_output_0", "se", settings={"reduction": 4}).insertions()
    assert insertion.id in ("model.2.se", "model.2.act.se_1")


def test_many_sites_in_one_call() -> None:
    data = models.detector().SerializeToString()
    edited = insert(data, ["/model.{0,2}", "/model.*/cv2", "tensor:images"], "nam", init="identity")
    assert [i.id for i in edited.insertions()] == [
        "model.0.nam",
        "model.2.nam",
        "model.1.cv2.nam",
        "model.3.cv2.nam",
        "model.4.cv2.nam",
        "nam",
    ]
    assert same_outputs(edited.to_bytes(), data)
    assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data


def test_each_site_has_weights_of_its_own() -> None:
    edited = insert(models.detector(), ["/model.2", "/model.3"], "se", settings={"reduction": 4})
    first, second = (weights_of(i, edited)["fc1.weight"] for i in edited.insertions())
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
    alone = insert(models.detector(), "/model.3", "se", settings={"reduction": 4})
    assert np.array_equal(weights_of(alone.insertions()[0], alone)["fc1.weight"], second)


# ---------------------------------------------------------------------- determinism


def request_script(data: bytes) -> bytes:
    edited = graphsurgery.insert(data, "se", after=["/model.2", "/model.*/cv2"], settings={"reduction": 4})
    edited = graphsurgery.insert(edited, "ge[theta]", after="tensor:images", settings={"extent": 2}, gate="residual")
    edited = graphsurgery.insert(edited, "simam", after=["/model.2", "tensor:boxes"])
    return graphsurgery.insert(edited, "nam", after="tensor:boxes").to_bytes()


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    data = models.detector(style="dynamo").SerializeToString().replace(b"val_", b"VAL_")
    data = models.detector().SerializeToString()
    expected = request_script(data)
    assert request_script(data) == expected
    (tmp_path / "m.onnx").write_bytes(data)
    code = (
        "import sys; from pathlib import Path; from tests.graphsurgery.insertion import test_splice as t;"
        "sys.stdout.buffer.write(t.request_script(Path(sys.argv[1]).read_bytes()))"
    )
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "m.onnx")],
            capture_output=True,
            check=True,
            env=environment,
            cwd=Path(__file__).parents[3],
        )
        assert done.stdout == expected


def test_seeds_give_other_weights() -> None:
    made = models.detector()
    a, b, c = (insert(made, "/model.2", "se", settings={"reduction": 4}, seed=seed).to_bytes() for seed in (0, 0, 1))
    assert a == b
    assert a != c
    with pytest.raises(GraphSurgeryError, match="seed"):
        graphsurgery.insert(made, "se", after="/model.2", seed=-1)


# ---------------------------------------------------------------------- removing


def test_removing_is_by_id() -> None:
    edited = insert(models.detector(), ["/model.0", "/model.2"])
    left = graphsurgery.remove(edited, "model.0.simam")
    check(edited, left)
    assert [i.id for i in left.insertions()] == ["model.2.simam"]
    assert left.to_bytes() == insert(models.detector(), "/model.2").to_bytes()
    assert graphsurgery.remove(edited, ["model.0.simam", "model.0.simam"]).to_bytes() == left.to_bytes()
    assert graphsurgery.remove(edited, []).to_bytes() == edited.to_bytes()


def test_removing_what_is_not_there() -> None:
    edited = insert(models.detector(), "/model.2")
    with pytest.raises(InsertionError, match=r"no insertion 'model\.8'; it has model\.2\.simam"):
        graphsurgery.remove(edited, ["model.2.simam", "model.8"])
    with pytest.raises(InsertionError, match="no insertion 'a'; it has none at all"):
        graphsurgery.remove(models.detector(), "a")
    data = models.detector().SerializeToString()
    assert graphsurgery.remove(data).to_bytes() == data


def changed(edited: ModelFile, change: Callable[[GraphProto], None]) -> ModelProto:
    made = edited.proto()
    change(made.graph)
    return made


def _rename_node(graph: GraphProto) -> None:
    next(n for n in graph.node if n.name == "/model.2/simam/Sigmoid").name = "other"


def _delete_node(graph: GraphProto) -> None:
    graph.node.remove(next(n for n in graph.node if n.name == "/model.2/simam/Sigmoid"))


def _double_name(graph: GraphProto) -> None:
    graph.node[0].name = "/model.2/simam/Sigmoid"


def _read_the_inside(graph: GraphProto) -> None:
    graph.node.append(node("Neg", ["/model.2/simam/Sigmoid_output_0"], ["peek"]))


def _feed_the_inside(graph: GraphProto) -> None:
    next(n for n in graph.node if n.name == "/model.2/simam/Add").input[1] = "/model.2/conv/Conv_output_0"


@pytest.mark.parametrize("change", [_rename_node, _delete_node, _double_name, _read_the_inside, _feed_the_inside])
def test_what_another_tool_has_changed_is_not_taken_out(change: Callable[[GraphProto], None]) -> None:
    edited = insert(models.detector(), ["/model.2", "/model.0"])
    made = changed(edited, change)
    with pytest.raises(InsertionError, match=r"^model\.2\.simam cannot be taken out: another tool has"):
        graphsurgery.remove(made)
    left = graphsurgery.remove(made, "model.0.simam")
    assert [i.id for i in left.insertions()] == ["model.2.simam"]


def test_tensors_that_another_tool_renamed_around_the_block_do_not_matter() -> None:
    """Removal looks at the graph as it is: new names of the site and of the block's output are no hindrance."""
    edited = insert(models.detector(), "/model.2", "nam", init="identity")
    text = edited.to_bytes()
    for old in (b"/model.2/act/Mul_output_0", b"/model.2/nam/Mul_output_0"):
        text = text.replace(old, old.replace(b"/", b"_"))
    bare = graphsurgery.remove(text)
    models.valid(bare.to_bytes())
    assert same_outputs(bare.to_bytes(), models.detector().SerializeToString())


def test_proof_of_being_unchanged(tmp_path: Path) -> None:
    original = ModelFile.load(models.detector())
    edited = insert(original, ["/model.2", "tensor:boxes"])
    assert removal.unchanged(edited).passed
    assert removal.unchanged(edited, original).passed
    assert "byte for byte" in removal.unchanged(edited, original).sentence
    elsewhere = changed(edited, lambda g: g.initializer[0].ClearField("doc_string"))
    assert removal.unchanged(ModelFile.load(elsewhere)).passed
    elsewhere.doc_string = "new"
    assert not removal.unchanged(ModelFile.load(elsewhere)).passed
    assert not removal.unchanged(ModelFile.load(elsewhere), original).passed
    weights = edited.proto()
    large = max(weights.graph.initializer, key=lambda t: len(t.raw_data))
    large.raw_data = bytes(len(large.raw_data))
    assert removal.unchanged(ModelFile.load(weights)).passed  # the digest is of the structure
    assert not removal.unchanged(ModelFile.load(weights), original).passed
    broken = ModelFile.load(changed(edited, _rename_node))
    assert "another tool" in removal.unchanged(broken).sentence
    assert not removal.unchanged(broken).passed
    assert removal.unchanged(original).passed


def test_same_bytes() -> None:
    data = bytes(models.detector().SerializeToString())
    a, b = ModelFile.load(data), ModelFile.load(bytearray(data))
    assert removal.same_bytes(a, a)
    assert removal.same_bytes(a, b)
    at = data.rindex(b"model.4.cv3")
    assert not removal.same_bytes(a, ModelFile.load(data[:at] + b"MODEL.4.cv3" + data[at + 11 :]))
    assert not removal.same_bytes(a, insert(a, "/model.2"))


def test_same_bytes_of_large_models(tmp_path: Path) -> None:
    """Chunk by chunk, however the ranges of the two lie."""
    path = models.sparse_file(tmp_path / "m.onnx", 5 << 20)
    data = bytearray(path.read_bytes())
    model = ModelFile.load(path)
    assert removal.same_bytes(model, ModelFile.load(data))
    assert removal.same_bytes(
        graphsurgery.remove(graphsurgery.insert(model, "nam", after="/model.0").to_bytes()), model
    )
    for place in (-1, -(3 << 20), -(5 << 20)):
        data[place] = 1
        assert not removal.same_bytes(model, ModelFile.load(data))
        data[place] = 0


# ---------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"after": ()}, r"where should simam go\? give after=SELECTOR or before=SELECTOR"),
        ({"after": "/model.2", "gate": "open"}, "there is no gate 'open'; it is one of none, residual"),
        ({"after": "/model.2", "init": "zeros"}, "there is no init 'zeros'; it is one of default, identity"),
        ({"after": "/model.2", "init": "identity", "weights": "w.npz"}, "not from both: drop init= or weights="),
        (
            {"after": "/model.2", "target": "tpu"},
            "there is no target 'tpu'; it is one of tensorrt, onnxruntime",
        ),
        ({"after": "/model.2", "lowering": "fast"}, "simam has no lowering 'fast' at model.2; it has"),
        (
            {"after": "/model.2", "settings": {"lambda": 1}},
            "simam has no hyper-parameter 'lambda'; the known ones are e_lambda",
        ),
        ({"after": "/model.2", "init": "identity"}, "use gate='residual'"),
        ({"after": "/model.2", "weights": "w.npz"}, "w.npz|no weights"),
    ],
)
def test_wrong_requests(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(GraphSurgeryError, match=words) as told:
        graphsurgery.insert(models.detector(), "simam", **arguments)
    assert told.value.exit_code == 2


def test_a_model_without_the_standard_operators() -> None:
    made = models.chain("Relu", "Neg")
    made.opset_import[0].domain = "com.example"
    with pytest.raises(ModelError, match="does not import the standard ONNX operator set"):
        graphsurgery.insert(made, "simam", after="tensor:x")


# ---------------------------------------------------------------------- any graph, any order

_UNARY = ("Relu", "Neg", "Sigmoid", "Abs", "Identity")
_NAMES = ("a_before", "/m.0/simam/Mul_output_0", "m.0.se.fc1.weight", "/nam/Mul", "simam.half", "y_before", "b", "c")
_SHAPE = (1, 4, 6, 6)


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    """Small graphs of maps: chains and joins, Ifs that capture, several outputs, names that the tool would choose."""
    opset, ir_version = draw(st.sampled_from([(9, 3), (11, 6), (13, 7), (17, 8), (21, 10)]))
    free = draw(st.permutations(_NAMES))
    tensors, nodes = ["x"], []
    for i in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(["unary", "unary", "Add", "Mul", "Conv", "If"]))
        out = free[i]
        a, b = draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors))
        name = draw(st.sampled_from([f"/m.{i // 2}/{i}/{kind}", f"n{i}", ""]))
        if kind == "unary":
            made = node(draw(st.sampled_from(_UNARY)), [a], [out], name)
        elif kind == "Conv":
            made = node("Conv", [a, "w"], [out], name)
        elif kind == "If":
            then = helper.make_graph([node("Add", [a, b], ["o"])], "then", [], [value("o", _SHAPE)])
            orelse = helper.make_graph([node("Neg", [b], ["o2"])], "else", [], [value("o2", _SHAPE)])
            made = node("If", ["flag"], [out], name, then_branch=then, else_branch=orelse)
        else:
            made = node(kind, [a, b], [out], name)
        nodes.append(made)
        tensors.append(out)
    outputs = dict.fromkeys([tensors[-1], *draw(st.lists(st.sampled_from(tensors[1:]), max_size=2))])
    made_model = models.model(
        nodes,
        [value("x", _SHAPE)],
        [value(name, _SHAPE) for name in outputs],
        [models.weight("w", (4, 4, 1, 1)), numpy_helper.from_array(np.array(draw(st.booleans())), "flag")],
        opset=opset,
        ir_version=ir_version,
    )
    data = bytes(made_model.SerializeToString())
    layout = draw(st.integers(0, 5))
    return models.relaid(data, layout) if layout else data


@given(graphs(), st.data())
@settings(max_examples=150)
def test_any_insertions_and_removals_in_any_order(data: bytes, choices: st.DataObject) -> None:
    models.valid(data)
    expected = models.run(data, size=6)
    model = ModelFile.load(data)
    for _ in range(choices.draw(st.integers(1, 6))):
        insertions = model.insertions()
        before = model
        if insertions and choices.draw(st.integers(0, 2)) == 0:
            ids = choices.draw(st.lists(st.sampled_from([i.id for i in insertions]), min_size=1, max_size=3))
            model = graphsurgery.remove(model.to_bytes(), ids)
        else:
            sites = [f"tensor:{tensor}" for tensor in _outer_tensors(model)]
            after = choices.draw(st.lists(st.sampled_from(sites), min_size=1, max_size=3))
            model = graphsurgery.insert(model, after=after, **choices.draw(st.sampled_from(IDENTITIES)))
        check(before, model)
    assert all(np.array_equal(a, b) for a, b in zip(models.run(model.to_bytes(), size=6), expected, strict=True))
    for insertion in choices.draw(st.permutations(model.insertions())):
        model = graphsurgery.remove(model.to_bytes(), insertion.id)
        models.valid(model.to_bytes())
    assert model.to_bytes() == data


def _outer_tensors(model: ModelFile) -> list[str]:
    """The maps that are not inside an inserted block."""
    graph = model.structure.graph
    inside = {name for i in model.insertions() for name in i.nodes}
    outer = [name for n in graph.node if n.name not in inside for name in n.output]
    return ["x", *outer, *(i.output_tensor for i in model.insertions() if i.output_tensor not in outer)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
def test_operators_of_onnx(every: int) -> None:
    """The models of onnx's own node tests: whatever has a map in it can be edited, stays valid and comes back."""
    from onnx.backend.test.case.node import collect_testcases

    seen: set[bytes] = set()
    inserted = 0
    for case in collect_testcases(None)[::every]:  # type: ignore[arg-type]
        data = case.model.SerializeToString()
        if data in seen:
            continue
        seen.add(data)
        model = ModelFile.load(data)
        assert model.to_bytes() == data
        for name in [*(i.name for i in case.model.graph.input), *(o.name for o in case.model.graph.output)][:3]:
            try:
                edited = graphsurgery.insert(model, "simam", after=f"tensor:{name}")
            except GraphSurgeryError:
                continue
            inserted += 1
            assert graphsurgery.remove(edited.to_bytes()).to_bytes() == data, case.name
            if _is_valid(data):
                models.valid(edited.to_bytes())
    assert inserted > 700 / every


def _is_valid(data: bytes) -> bool:
    try:
        models.valid(data)
    except Exception:  # a few of them have shapes that only a runtime accepts
        return False
    return True
