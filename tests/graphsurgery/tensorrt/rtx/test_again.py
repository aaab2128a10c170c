"""Nodes that are refused behind the first: what is asked again, and when that is not all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx
import pytest
from onnx import helper

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.rtx.again import everything
from graphsurgery.tensorrt.rtx.opinion import Refusal
from tests.models import SHAPE, chain, model, node, value

Parse = Callable[[ModelFile], Sequence[Refusal] | None]


def first_only(*operators: str) -> Parse:
    """A parser that stops at the first node of these operators, in a model that has to be valid."""

    def parse(part: ModelFile) -> Sequence[Refusal]:
        onnx.checker.check_model(part.proto())
        nodes = enumerate(part.structure.graph.node)
        found = [Refusal("no", 9, "", i, n.name, n.op_type) for i, n in nodes if n.op_type in operators]
        return found[:1]

    return parse


def told(proto: onnx.ModelProto, parse: Parse) -> tuple[list[tuple[int, str]], bool]:
    whole = ModelFile.load(proto)
    found, complete = everything(whole, parse(whole) or (), parse)
    return [(each.node, each.name) for each in found], complete


def test_every_node_is_told_at_its_place_in_the_whole_model() -> None:
    proto = chain("Relu", "Neg", "Relu", "Neg", "Neg", "Relu")
    assert told(proto, first_only("Neg")) == ([(1, "n1"), (3, "n3"), (4, "n4")], True)


def test_a_refused_node_may_give_the_models_output() -> None:
    proto = chain("Neg", "Relu", "Neg")
    proto.graph.output.extend([value("t0", SHAPE), value("t1", SHAPE)])
    assert told(proto, first_only("Neg")) == ([(0, "n0"), (2, "n2")], True)


def test_what_a_node_would_give_has_to_be_known() -> None:
    unknown = node("Nothing", ["x"], ["t"], "/a", domain="mine")
    proto = model([unknown, node("Neg", ["t"], ["y"], "/b")], [value("x", (2,))], [value("y", None)])
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    first = [Refusal("no", 6, "", 0, "/a", "Nothing")]
    found, complete = everything(ModelFile.load(proto), first, first_only("Neg"))
    assert (found, complete) == (first, False)


def test_it_ends_where_nothing_new_is_told() -> None:
    whole = ModelFile.load(chain("Neg", "Relu"))
    first = [Refusal("no", 9, "", 0, "n0", "Neg")]
    assert everything(whole, first, lambda part: None) == (first, False)
    as_a_whole = Refusal("the model", 5, "", -1, "", "")
    assert everything(whole, first, lambda part: [as_a_whole]) == ([*first, as_a_whole], False)


def test_it_ends_after_some_rounds() -> None:
    found, complete = told(chain(*["Neg"] * 30), first_only("Neg"))
    assert [position for position, _ in found] == list(range(len(found)))
    assert (len(found), complete) == (11, False)


@pytest.mark.parametrize(("around", "complete"), [("/call (F)", True), (" (F)", False)])
def test_a_node_in_a_function_stands_for_its_call(around: str, complete: bool) -> None:
    body = [helper.make_node("Neg", ["u"], ["v"], "/inner")]
    nodes = [node("Relu", ["x"], ["t"], "/a"), node("F", ["t"], ["y"], "/call", domain="mine")]
    proto = model(nodes, [value("x", (2,))], [value("y", (2,)), value("t", (2,))])
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    proto.functions.append(helper.make_function("mine", "F", ["u"], ["v"], body, [helper.make_opsetid("", 17)]))
    first = [Refusal("no", 9, "", 0, "/inner", "Neg", (around,))]
    assert everything(ModelFile.load(proto), first, first_only("Neg")) == (first, complete)
