"""Insertions for some of the readers of a tensor only: --before, --consumers, and every order of putting in and out."""

from __future__ import annotations

import contextlib
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsurgery
from graphsurgery.api import carry_out
from graphsurgery.errors import GraphSurgeryError, InsertionError, RequestError, SelectorError, SiteError
from graphsurgery.insertion import removal
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.request import Request
from tests import models
from tests.graphsurgery.insertion.test_splice import IDENTITIES, check, graphs, inputs_of, same_outputs
from tests.models import node, value


def fan(*, output: bool = False) -> bytes:
    """x -> /m.0/Relu -> t, which /m.1/A, /m.2/B and /m.3/C read and, if asked for, the model gives out; -> y."""
    nodes = [
        node("Relu", ["x"], ["t"], "/m.0/Relu"),
        node("Neg", ["t"], ["a"], "/m.1/A"),
        node("Abs", ["t"], ["b"], "/m.2/B"),
        node("Exp", ["t"], ["c"], "/m.3/C"),
        node("Sum", ["a", "b", "c"], ["y"], "/m.4/Sum"),
    ]
    made = models.model(nodes, [value("x")], [value("y"), *([value("t")] if output else [])])
    return bytes(made.SerializeToString())


def insert(model: Any, **arguments: Any) -> ModelFile:
    before = ModelFile.load(model)
    edited = graphsurgery.insert(before, arguments.pop("module", "simam"), **arguments)
    check(before, edited)
    return ModelFile.load(edited.to_bytes())


def restored(model: ModelFile, data: bytes) -> None:
    """Every order of taking the insertions out gives the bytes back, and a valid model at each step."""
    assert graphsurgery.remove(model).to_bytes() == data
    for order in permutations(insertion.id for insertion in model.insertions()):
        left = model
        for name in order:
            left, before = graphsurgery.remove(left.to_bytes(), name), left
            check(before, left)
        assert left.to_bytes() == data


def seen(model: ModelFile) -> dict[str, list[str]]:
    """For A, B, C and the output t: the blocks between the Relu and it, from the Relu on."""
    made = {name: n for n in model.structure.graph.node for name in n.output}
    by_output = {insertion.output_tensor: insertion for insertion in model.insertions()}

    def chain(tensor: str) -> list[str]:
        found = []
        while tensor in by_output:
            found.insert(0, by_output[tensor].id)
            tensor = by_output[tensor].site.tensor
        assert made[tensor].name == "/m.0/Relu"
        return found

    starts = {name: inputs_of(model, f"/m.{i}/{name}")[0] for i, name in enumerate("ABC", start=1)}
    if any(o.name == "t" for o in model.structure.graph.output):
        starts["t"] = "t"
    return {name: chain(tensor) for name, tensor in starts.items()}


# ---------------------------------------------------------------------- one insertion


def test_before_rewires_only_the_edge_into_the_module() -> None:
    edited = insert(fan(), before="/m.2")
    assert seen(edited) == {"A": [], "B": ["m.2.simam"], "C": []}
    (insertion,) = edited.insertions()
    assert (insertion.site.position, insertion.site.path, insertion.site.tensor) == ("before", "/m.2", "t")
    assert (insertion.site.consumers, insertion.site.others) == (("/m.2/B",), ("/m.1/A", "/m.3/C"))
    restored(edited, fan())


def test_consumers_rewires_only_these() -> None:
    edited = insert(fan(), after="/m.0", consumers=["/m.{1,3}"])
    assert seen(edited) == {"A": ["m.0.simam"], "B": [], "C": ["m.0.simam"]}
    (insertion,) = edited.insertions()
    assert (insertion.site.position, insertion.site.path, insertion.site.tensor) == ("after", "/m.0", "t")
    assert (insertion.site.consumers, insertion.site.others) == (("/m.1/A", "/m.3/C"), ("/m.2/B",))
    restored(edited, fan())


@pytest.mark.parametrize("consumers", [["node:/m.1/A"], ["op:Neg"], ["op:Neg[0]"], ["/m.1"], ["m.?, m.4//op:Sum"]])
def test_consumers_of_every_kind(consumers: list[str]) -> None:
    edited = insert(fan(), after="tensor:t", consumers=consumers)
    expected = ["m.0.simam"]
    every = "?" in consumers[0]
    assert seen(edited) == {"A": expected, "B": expected if every else [], "C": expected if every else []}


def test_an_output_stays_with_the_tensor_unless_it_is_named() -> None:
    data = fan(output=True)
    kept = insert(data, after="/m.0", consumers="/m.1")
    assert seen(kept) == {"A": ["m.0.simam"], "B": [], "C": [], "t": []}
    assert kept.insertions()[0].site.others == ("/m.2/B", "/m.3/C", "output:t")
    assert np.array_equal(models.run(kept.to_bytes())[1], models.run(data)[1])
    restored(kept, data)
    named = insert(data, after="/m.0", consumers="output:t")
    assert seen(named) == {"A": [], "B": [], "C": [], "t": ["m.0.simam"]}
    (insertion,) = named.insertions()
    assert (insertion.site.tensor, insertion.output_tensor) == ("t_before", "t")
    assert np.array_equal(models.run(named.to_bytes())[0], models.run(data)[0])
    assert not np.array_equal(models.run(named.to_bytes())[1], models.run(data)[1])
    restored(named, data)


def test_before_of_a_node_that_reads_twice_and_of_a_branch_that_captures() -> None:
    made = models.with_if()
    edited = insert(made, before="node:branch", module="se", init="identity", settings={"reduction": 2})
    assert b"site" not in edited.structure.graph.node[-2].SerializeToString()
    assert same_outputs(edited.to_bytes(), made.SerializeToString())
    restored(edited, made.SerializeToString())


def test_the_input_of_the_model_in_front_of_one_of_its_readers() -> None:
    made = models.model(
        [node("Neg", ["x"], ["a"], "/m.0/A"), node("Abs", ["x"], ["b"], "/m.1/B"), node("Add", ["a", "b"], ["y"])],
        [value("x")],
        [value("y"), value("x")],
    )
    edited = insert(made, before="/m.1")  # behind x as a whole a block cannot stand: x is an output too
    assert inputs_of(edited, "/m.0/A") == ["x"]
    restored(edited, made.SerializeToString())


# ---------------------------------------------------------------------- several, at once and one after the other


@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        # the same readers: in the order of the list
        ([("nam", "/m.1"), ("se", "/m.1")], {"A": "nam se", "B": "", "C": "", "t": ""}),
        # readers that have nothing in common
        ([("nam", "/m.1"), ("se", "/m.2")], {"A": "nam", "B": "se", "C": "", "t": ""}),
        # for all, and for some: whatever the order, the one for all is nearer to the tensor
        ([("nam", None), ("se", "/m.1")], {"A": "nam se", "B": "nam", "C": "nam", "t": "nam"}),
        ([("se", "/m.1"), ("nam", None)], {"A": "nam se", "B": "nam", "C": "nam", "t": "nam"}),
        ([("se", "/m.1"), ("nam", "/m.[12]")], {"A": "nam se", "B": "nam", "C": "", "t": ""}),
        (
            [("se", "/m.1"), ("nam", "/m.[12]"), ("simam", None), ("ge", "/m.3")],
            {"A": "simam nam se", "B": "simam nam", "C": "simam ge", "t": "simam"},
        ),
        (
            [("nam", None), ("se", None), ("simam", "/m.2")],
            {"A": "nam se", "B": "nam se simam", "C": "nam se", "t": "nam se"},
        ),
    ],
)
def test_one_call_and_several_give_the_same_chains(
    requests: list[tuple[str, str | None]], expected: dict[str, str], output: bool
) -> None:
    data = fan(output=output)
    told = [
        Request(
            module, ("/m.0",), {"reduction": 2} if module == "se" else {}, gate="residual", consumers=(c,) if c else ()
        )
        for module, c in requests
    ]
    once, _ = carry_out(ModelFile.load(data), told)
    check(ModelFile.load(data), once)
    several = ModelFile.load(data)
    for request in told:
        before, several = several, carry_out(several, [request])[0]
        check(before, several)
        several = ModelFile.load(several.to_bytes())
    for edited in (once, several):
        chains = {name: " ".join(i.rpartition(".")[2] for i in ids) for name, ids in seen(edited).items()}
        assert chains == {name: chain for name, chain in expected.items() if output or name != "t"}
        assert same_outputs(edited.to_bytes(), data)
        restored(ModelFile.load(edited.to_bytes()), data)


@pytest.mark.parametrize("output", [False, True])
def test_the_output_in_a_chain_of_its_own(output: bool) -> None:
    data = fan(output=True)
    told = [
        Request("simam", ("/m.0",), gate="residual", consumers=("/m.1",)),
        Request("nam", ("/m.0",), gate="residual", consumers=("output:t", "/m.2")),
        Request("simam", ("/m.0",), gate="residual", consumers=("output:t",)),
        Request("nam", ("/m.0",), gate="residual"),
    ][: 4 if output else 3]
    once, _ = carry_out(ModelFile.load(data), told)
    check(ModelFile.load(data), once)
    several = ModelFile.load(data)
    for request in told:
        several = ModelFile.load(carry_out(several, [request])[0].to_bytes())
    first = ["nam"] if output else []
    for edited in (once, several):
        chains = {name: [i.rpartition(".")[2].partition("_")[0] for i in ids] for name, ids in seen(edited).items()}
        assert chains == {
            "A": [*first, "simam"],
            "B": [*first, "nam"],
            "C": first,
            "t": [*first, "nam", "simam"],
        }
        restored(ModelFile.load(edited.to_bytes()), data)


def test_before_twice_is_a_chain_and_after_the_module_is_not_disturbed() -> None:
    edited = insert(fan(), before="/m.2")
    edited = insert(edited, before="/m.2", module="nam")
    assert seen(edited)["B"] == ["m.2.simam", "m.2.nam"]
    edited = insert(edited, after="/m.0", module="nam")
    assert seen(edited) == {"A": ["m.0.nam"], "B": ["m.0.nam", "m.2.simam", "m.2.nam"], "C": ["m.0.nam"]}
    edited = insert(edited, after="m.2.simam", module="nam")  # behind the block itself
    assert seen(edited)["B"] == ["m.0.nam", "m.2.simam", "m.2.simam.nam", "m.2.nam"]
    assert [n.name for n in edited.structure.graph.node if n.name == "/m.2/B"]
    assert ModelFile.load(insert(edited, after="/m.2").to_bytes()).insertions()[-1].site.tensor == "b"
    restored(edited, fan())


def test_before_the_only_consumer_is_on_its_branch_too() -> None:
    made = models.chain("Relu", "Neg")
    for proto, name in zip(made.graph.node, ("/m.0/Relu", "/m.1/Neg"), strict=True):
        proto.name = name
    first = insert(made, before="/m.1")
    second = insert(first, before="/m.1", module="nam")
    assert [each.site.tensor for each in second.insertions()] == ["t0", first.insertions()[0].output_tensor]
    third = insert(second, after="/m.0", module="nam")
    assert third.insertions()[-1].site.tensor == "t0"
    restored(third, made.SerializeToString())


def test_what_stands_behind_a_block_for_some_readers_is_on_their_branch() -> None:
    edited = insert(fan(), after="/m.0", consumers="/m.1")
    edited = insert(edited, after="m.0.simam", module="nam")
    assert seen(edited) == {"A": ["m.0.simam", "m.0.simam.nam"], "B": [], "C": []}
    again = insert(edited, after="/m.0", consumers="/m.1")
    assert seen(again)["A"] == ["m.0.simam", "m.0.simam.nam", "m.0.simam_1"]
    again = insert(again, after="/m.0", module="nam")
    assert seen(again) == {
        "A": ["m.0.nam", "m.0.simam", "m.0.simam.nam", "m.0.simam_1"],
        "B": ["m.0.nam"],
        "C": ["m.0.nam"],
    }
    restored(again, fan())


def test_a_block_for_a_branch_with_two_blocks_and_for_another() -> None:
    edited = insert(fan(), after="/m.0", consumers="/m.1")
    edited = insert(edited, after="m.0.simam", module="nam")
    wider = insert(edited, after="/m.0", consumers="/m.[12]")
    assert seen(wider) == {"A": ["m.0.simam_1", "m.0.simam", "m.0.simam.nam"], "B": ["m.0.simam_1"], "C": []}
    restored(wider, fan())
    assert "'t', which is read by /m.1, /m.2, /m.3\n" in told(edited, after="/m.0", consumers="/m.4")


def test_a_module_that_holds_the_whole_branch_is_as_before() -> None:
    made = models.ModelProto.FromString(fan())
    for proto in made.graph.node:
        proto.name = "/net" + proto.name
    made.graph.node.append(node("Neg", ["y"], ["z"], "/end/Neg"))
    made.graph.output[0].name = "z"
    edited = insert(made, after="net.m.0", consumers="net.m.1")
    assert insert(edited, after="/net").insertions()[-1].site.tensor == "y"
    assert insert(edited, before="/net").insertions()[-1].site.tensor == "x"


def test_two_modules_in_front_of_which_the_same_tensor_stands() -> None:
    edited = insert(fan(), before="/m.[12]")
    assert seen(edited) == {"A": ["m.1.simam"], "B": ["m.2.simam"], "C": []}
    again = insert(fan(), before=["/m.2", "/m.[12]", "op:Abs"])
    assert len(again.insertions()) == 2


# ---------------------------------------------------------------------- what cannot be done


def told(data: bytes | ModelFile, kind: type[GraphSurgeryError] = SelectorError, **arguments: Any) -> str:
    with pytest.raises(kind) as error:
        graphsurgery.insert(data, "simam", **arguments)
    return str(error.value)


def test_consumers_that_read_nothing_are_told_with_the_readers() -> None:
    assert told(fan(output=True), after="/m.0", consumers="/m.4") == (
        "consumers= names no consumer of 't', which is read by /m.1, /m.2, /m.3, output:t\n  /m.4\n  ^^^^"
    )
    assert "'/m.4' and 'op:Relu' name no consumer of 't', which is read by" in told(
        fan(), after="/m.0", consumers=["/m.4", "op:Relu"]
    )
    assert "/m.4\n  ^^^^" in told(fan(), after="/m.0", consumers=["/m.1", "/m.4"])
    unnamed = models.chain("Relu", "Neg")
    for proto in unnamed.graph.node:
        proto.name = ""
    assert "which is read by op:Neg[0]" in told(unnamed.SerializeToString(), after="op:Relu", consumers="op:Relu")


def test_consumers_that_are_tensors() -> None:
    assert "the tensor 'a' reads nothing; consumers are modules" in told(fan(), after="/m.0", consumers="tensor:a")
    assert "the model has no output 'a'; its outputs are y" in told(fan(), after="/m.0", consumers="output:a")


def test_before_a_tensor_or_what_has_several_entries() -> None:
    assert "'t' is no module, so there is nothing in front of it; use after=, with consumers=" in told(
        fan(), before="tensor:t"
    )
    assert told(fan(), before="/m.4").startswith(
        "3 tensors enter the module '/m.4'; name one with after=, and consumers='/m.4' for its consumers there: "
        "tensor:a [1, 4, 8, 8], tensor:b [1, 4, 8, 8], tensor:c [1, 4, 8, 8]"
    )
    one = insert(fan(), after="tensor:a", consumers="/m.4")
    assert inputs_of(one, "/m.4/Sum") == [one.insertions()[0].output_tensor, "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "where should simam go? give after=SELECTOR or before=SELECTOR"),
        ({"after": "/m.0", "before": "/m.1"}, "give after= or before=, not both"),
        ({"before": "/m.0", "consumers": "/m.1"}, "consumers= goes with after="),
    ],
)
def test_after_or_before(arguments: dict[str, str], said: str) -> None:
    assert said in told(fan(), RequestError, **arguments)


def test_readers_that_are_half_in_common() -> None:
    """A block sees one tensor: what is put in front of A and B cannot stand in front of B and C as well."""
    ab = Request("simam", ("/m.0",), consumers=("/m.[12]",))
    bc = Request("nam", ("/m.0",), consumers=("/m.[23]",))
    with pytest.raises(SiteError, match="some of their consumers in common and some not"):
        carry_out(ModelFile.load(fan()), [ab, bc])
    first, _ = carry_out(ModelFile.load(fan()), [ab])
    with pytest.raises(SiteError, match=r"the insertion m\.0\.simam stands in front of some of the consumers"):
        carry_out(first, [bc])


def test_a_block_is_not_torn_apart() -> None:
    edited = insert(fan(), after="/m.0", consumers="/m.1", module="se", settings={"reduction": 2})
    reads = [n.name for n in edited.structure.graph.node if "t" in n.input and "/se/" in n.name]
    assert len(reads) == 2
    for arguments in ({"before": f"node:{reads[0]}"}, {"after": "tensor:t", "consumers": f"node:{reads[1]}"}):
        assert "a part of the insertion m.0.se" in told(edited, SiteError, **arguments)
    whole = insert(edited, after="tensor:t", consumers="m.0.se", module="nam")
    assert seen(whole) == {"A": ["m.0.nam", "m.0.se"], "B": [], "C": []}


def test_what_is_listed_verified_and_refused_as_ever() -> None:
    edited = insert(fan(), before="/m.2", module="nam")
    assert removal.unchanged(edited).passed
    assert removal.unchanged(edited, ModelFile.load(fan())).passed
    assert graphsurgery.verify(edited, seeds=1).passed
    with pytest.raises(InsertionError, match="no insertion"):
        graphsurgery.remove(edited, "m.2.simam")


# ---------------------------------------------------------------------- any graph, any order


@given(graphs(), st.data())
@settings(max_examples=100, deadline=None)
def test_any_readers_in_any_order(data: bytes, choices: st.DataObject) -> None:
    """As the same for whole tensors, with insertions for any of the readers between."""
    expected = models.run(data, size=6)
    model = ModelFile.load(data)
    for _ in range(choices.draw(st.integers(1, 6))):
        insertions = model.insertions()
        before = model
        if insertions and choices.draw(st.integers(0, 2)) == 0:
            ids = choices.draw(st.lists(st.sampled_from([i.id for i in insertions]), min_size=1, max_size=3))
            model = graphsurgery.remove(model.to_bytes(), ids)
        else:
            requests = choices.draw(st.lists(_requests(model), min_size=1, max_size=3))
            with contextlib.suppress(_Apart):
                model = _carried_out(model, requests)
        check(before, model)
        model = ModelFile.load(model.to_bytes())
    assert all(np.array_equal(a, b) for a, b in zip(models.run(model.to_bytes(), size=6), expected, strict=True))
    for insertion in choices.draw(st.permutations(model.insertions())):
        model = graphsurgery.remove(model.to_bytes(), insertion.id)
        models.valid(model.to_bytes())
    assert model.to_bytes() == data


class _Apart(Exception):
    """Readers that are half in common with those of another insertion, or that read another tensor."""


def _carried_out(model: ModelFile, requests: list[Request]) -> ModelFile:
    try:
        return carry_out(model, requests)[0]
    except (SiteError, SelectorError) as error:
        if any(words in str(error) for words in ("in common", "stands in front", "names no consumer", "part of")):
            raise _Apart from None
        raise


@st.composite
def _requests(draw: st.DrawFn, model: ModelFile) -> Request:
    graph = model.structure.graph
    inside = {name for i in model.insertions() for name in i.nodes}
    tensor = draw(st.sampled_from(["x", *(name for n in graph.node if n.name not in inside for name in n.output)]))
    seen_by = [n for n in graph.node if n.name not in inside]
    spelled = [f"op:{n.op_type}[{_number(graph.node, n)}]" for n in seen_by if _reads(n, tensor)]
    spelled += [f"output:{tensor}"] * any(o.name == tensor for o in graph.output)
    consumers = tuple(draw(st.lists(st.sampled_from(spelled), unique=True))) if spelled else ()
    arguments = dict(draw(st.sampled_from(IDENTITIES)))
    return Request(arguments.pop("module"), (f"tensor:{tensor}",), consumers=consumers, **arguments)


def _number(nodes: Any, wanted: models.NodeProto) -> int:
    same = [n for n in nodes if n.op_type == wanted.op_type]
    return next(i for i, n in enumerate(same) if n is wanted or list(n.output) == list(wanted.output))


def _reads(one: models.NodeProto, tensor: str) -> bool:
    return tensor in one.input or any(_reads(n, tensor) for g in models.captured_graphs(one) for n in g.node)
