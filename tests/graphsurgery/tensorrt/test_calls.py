"""Local functions whose nodes refer to the attributes that the function is called with."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import pytest
from onnx import AttributeProto, NodeProto, helper

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt import check, findings
from graphsurgery.tensorrt.view import View
from tests.models import model, node, value

SHAPE = (1, 8, 16, 16)


def referring(op_type: str, name: str, kind: int, to: str) -> NodeProto:
    made = node(op_type, ["a"], ["b"], "inner")
    made.attribute.append(AttributeProto(name=name, type=kind, ref_attr_name=to))
    return made


def pooled(*sizes: Sequence[int] | None, default: Sequence[int] = ()) -> onnx.ModelProto:
    """A function with a MaxPool, called once for each window; None: without saying it."""
    names = ["x", *(f"t{i}" for i in range(len(sizes) - 1)), "y"]
    calls = [
        helper.make_node("Pool", [names[i]], [names[i + 1]], domain="local", **({"size": size} if size else {}))
        for i, size in enumerate(sizes)
    ]
    made = model(calls, [value("x", SHAPE)], [value("y", ("n", "c", "h", "w"))])
    body = [referring("MaxPool", "kernel_shape", AttributeProto.INTS, "size")]
    function = helper.make_function("local", "Pool", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    if default:
        function.attribute_proto.append(helper.make_attribute("size", default))
    else:
        function.attribute.append("size")
    made.functions.append(function)
    made.opset_import.append(helper.make_opsetid("local", 1))
    return made


def windows(made: onnx.ModelProto) -> list[tuple[str | None, list[int] | None]]:
    visits = View(ModelFile.load(made)).visits
    return [(v.within, v.attribute("kernel_shape")) for v in visits if v.operator == "MaxPool"]


def test_an_attribute_is_the_one_that_the_call_gives() -> None:
    made = pooled([2, 2])
    onnx.checker.check_model(made)
    assert windows(made) == [("the function local.Pool", [2, 2])]
    for version in ("8.6", "10", "11"):
        check(made, version)


def test_every_different_call_is_looked_at_once() -> None:
    made = pooled([2, 2], [2, 2], [1, 1, 1, 1])
    assert windows(made) == [
        ("the function local.Pool, called with size = [2, 2]", [2, 2]),
        ("the function local.Pool, called with size = [1, 1, 1, 1]", [1, 1, 1, 1]),
    ]
    (found,) = (each for each in findings(made, "10") if each.rule == "pool-window")
    assert found.within == "the function local.Pool, called with size = [1, 1, 1, 1]"


@pytest.mark.parametrize(("given", "expected"), [(None, [3, 3]), ([5, 5], [5, 5])])
def test_an_attribute_may_have_a_default(given: Sequence[int] | None, expected: list[int]) -> None:
    assert windows(pooled(given, default=[3, 3])) == [("the function local.Pool", expected)]


def test_an_attribute_that_the_call_leaves_out_is_left_out() -> None:
    assert windows(pooled(None)) == [("the function local.Pool", None)]


def test_an_attribute_is_handed_on_from_call_to_call() -> None:
    made = pooled([4, 4])
    outer = referring("Pool", "size", AttributeProto.INTS, "window")
    outer.domain = "local"
    function = helper.make_function("local", "Outer", ["a"], ["b"], [outer], [helper.make_opsetid("local", 1)])
    function.attribute.append("window")
    made.functions.append(function)
    made.graph.node[0].CopyFrom(helper.make_node("Outer", ["x"], ["y"], domain="local", window=[6, 6]))
    assert windows(made) == [("the function local.Pool", [6, 6])]


def test_functions_that_call_themselves_and_each_other_come_to_an_end() -> None:
    made = pooled([2, 2])
    made.functions[0].node.append(helper.make_node("Pool", ["b"], ["c"], domain="local", size=[3, 3]))
    assert [window for _, window in windows(made)] == [[2, 2], [3, 3]]


def test_a_function_that_nothing_calls_is_not_looked_at() -> None:
    """No parser imports it."""
    made = pooled([2, 2])
    body = [helper.make_node("Det", ["a"], ["b"])]
    made.functions.append(helper.make_function("local", "Left", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    assert not check(made, "11").stops
    made.functions[0].node[0].CopyFrom(helper.make_node("Left", ["a"], ["b"], domain="local"))
    assert check(made, "11").stops
