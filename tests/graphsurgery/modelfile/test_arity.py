"""Nodes of the wrong arity, and attributes and types that are none: told or passed over, never a trace."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import AttributeProto, ModelProto, helper

import graphsurgery as gsx
from graphsurgery.diff.diff import diff
from graphsurgery.errors import ModelError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.check import check
from tests import models


def without_input() -> ModelProto:
    made = models.detector()
    del made.graph.node[0].input[1:]
    return made


def without_output() -> ModelProto:
    made = models.detector()
    del made.graph.node[1].output[:]
    return made


def in_a_branch() -> ModelProto:
    made = models.with_if()
    then = next(each.g for each in made.graph.node[1].attribute if each.name == "then_branch")
    deep = next(each.g for each in then.node[0].attribute if each.name == "then_branch")
    del deep.node[0].input[:]
    return made


def in_a_function() -> ModelProto:
    made = models.kitchen_sink(runnable=True)
    del made.functions[1].node[0].output[:]
    return made


SAID = {
    without_input: "the model is not a valid model: the node '/model.0/conv/Conv', a Conv, has 1 input and needs 2",
    without_output: "the model is not a valid model: the node '/model.0/act/Sigmoid', a Sigmoid, has no output "
    "and needs 1",
    in_a_branch: "the model is not a valid model: a node, a Neg, has no input and needs 1",
    in_a_function: "the model is not a valid model: a node, a Relu, has no output and needs 1",
}


@pytest.mark.parametrize("build", SAID, ids=lambda build: build.__name__)
@pytest.mark.parametrize("act", [gsx.sites, check], ids=["sites", "tensorrt check"])
def test_a_node_that_lacks_an_input_or_output(build: Callable[[], ModelProto], act: Callable[..., object]) -> None:
    with pytest.raises(ModelError) as raised:
        act(ModelFile.load(build()))
    assert str(raised.value) == SAID[build]


def test_operators_that_onnx_does_not_know_may_have_any_arity() -> None:
    made = models.detector()
    made.graph.node.append(helper.make_node("Log", [], [], domain="example.org"))
    made.graph.node.append(helper.make_node("OperatorOfTomorrow", [], []))
    assert gsx.sites(made)


def test_an_attribute_of_another_type_is_none_to_the_rules_of_tensorrt() -> None:
    made = models.with_if()
    for attribute in made.graph.node[1].attribute:
        attribute.graphs.append(attribute.g)
        attribute.ClearField("g")
        attribute.type = AttributeProto.GRAPHS
    check(ModelFile.load(made))
    hard = models.chain("Hardmax", opset=13)
    hard.graph.node[0].attribute.append(helper.make_attribute("axis", "last"))
    check(ModelFile.load(hard))


def test_an_element_type_that_onnx_does_not_have_is_shown_by_its_number() -> None:
    made = models.chain("Relu")
    made.graph.output[0].type.tensor_type.elem_type = 2**31 - 1
    lines = "\n".join(diff(ModelFile.load(models.chain("Relu")), ModelFile.load(made)).lines())
    assert "type 2147483647 [1, 4, 8, 8]" in lines


def test_a_quantiser_that_is_read_by_a_node_without_outputs() -> None:
    nodes = [
        models.node("Conv", ["x", "w"], ["a"]),
        models.node("QuantizeLinear", ["a", "s"], ["q"]),
        onnx.NodeProto(op_type="DequantizeLinear", domain="com.microsoft", input=["q", "s"]),
        models.node("Relu", ["a"], ["y"]),
    ]
    weights = [models.weight("w", (4, 4, 1, 1)), models.weight("s", ())]
    shapes = [models.value("a")]
    made = models.model(nodes, [models.value("x")], [models.value("y")], weights, value_info=shapes)
    assert [site.tensor for site in gsx.sites(made)] == ["a", "y"]
