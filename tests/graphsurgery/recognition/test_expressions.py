"""What ``match`` accepts, ``possible`` accepts: a look at the operators upstream changes nothing that is found."""

from __future__ import annotations

import random

import onnx
import pytest
from onnx import ModelProto

from graphsurgery.entry_points import loaded
from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.shapes import ShapeTable
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.recognition import Expression, OneOf, Pattern, View
from graphsurgery.recognition.expressions import Alternatives, Entry
from graphsurgery.recognition.matcher import Matcher
from graphsurgery.recognition.strides import Strides
from tests.exports import export
from tests.recognition.randomise import randomise

PATTERNS = loaded("graphsurgery.detectors").values(Pattern)
EXPORTS = ["yolov8n", "yolo11n", "yolo12n", "yolo26n", "rtdetr-l", "rtdetr-r18", "yolox-tiny", "mobilenet_v3_large"]


class Anything(Matcher):
    """Knows nothing of what is upstream of a tensor: all of it is possible."""

    def alternatives(self, expression: Expression, number: int, entry: Entry | None) -> Alternatives:
        return (expression,)


class Credulous(Matcher):
    """Tries every expression that the node itself allows, whatever is upstream of it."""

    def __init__(self, view: View, strides: Strides) -> None:
        super().__init__(view, strides, PATTERNS)
        self.anything = Anything(view, strides, PATTERNS)

    def alternatives(self, expression: Expression, number: int, entry: Entry | None) -> Alternatives:
        if isinstance(expression, OneOf):
            return expression.choices
        if expression.operators is not None and self.surroundings[number][0] not in expression.operators:
            return ()
        return expression.possible(self.anything, number, None)


def same_blocks(model: ModelProto) -> int:
    """Check that both find the same blocks at every tensor, and count them."""
    index = GraphIndex(ModelFile.load(model))
    view = View(index)
    strides, count = Strides(view, ShapeTable(index)), 0
    credulous, careful = Credulous(view, strides), Matcher(view, strides, PATTERNS)
    for name in (name for node_index in view.order for name in view.outputs(node_index)):
        expected = list(credulous.ending_at(name))
        assert list(careful.ending_at(name)) == expected, name
        count += len(expected)
    return count


def rewired(model: ModelProto, seed: int) -> ModelProto:
    """A copy in which one node in twenty computes or reads something else, or is an output of the model."""
    copy, rng = ModelProto(), random.Random(seed)
    copy.CopyFrom(model)
    nodes = list(copy.graph.node)
    for _ in range(len(nodes) // 20):
        place = rng.randrange(1, len(nodes))
        node, earlier = nodes[place], nodes[rng.randrange(max(0, place - 8), place)].output[0]
        match rng.randrange(4):
            case 0:
                node.op_type = rng.choice(nodes).op_type
                lacking = onnx.defs.get_schema(node.op_type).min_input - len(node.input)
                node.input.extend([earlier] * max(0, lacking))  # less is no model
            case 1 if node.input:
                node.input[0] = earlier
            case 2:
                node.input.append(earlier)
            case _:
                copy.graph.output.add(name=node.output[0])
    return copy


@pytest.mark.parametrize("name", EXPORTS)
def test_in_real_models(name: str) -> None:
    assert same_blocks(onnx.load(export(name, "simplified"))) > 50


@pytest.mark.parametrize("variant", ["torchscript", "dynamo", "qdq", "qoperator", "half"])
def test_in_other_forms_of_one_model(variant: str) -> None:
    assert same_blocks(randomise(onnx.load(export("yolov8n", variant))).model) > 50


@pytest.mark.parametrize("seed", range(8))
def test_in_graphs_that_nobody_wrote(seed: int) -> None:
    assert same_blocks(rewired(onnx.load(export(("yolo11n", "yolov8n")[seed % 2], "simplified")), seed)) > 10
