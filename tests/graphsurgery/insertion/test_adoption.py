"""adopt: records that a tool dropped are put back where the blocks are proven, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.errors import InsertionError, RequestError
from graphsurgery.graph.index import GraphIndex
from graphsurgery.insertion.unrecorded import unrecorded
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.verification.connection import Connections
from tests import models, quantised
from tests.optimisers import MOST, optimised, without_metadata

DETECTOR = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"

RECIPES = {
    "several places": "[{module: simam, after: '/model.{4,8}'}]",
    "a chain": "[{module: se, after: /model.4, init: identity}, {module: se, after: /model.4, init: identity}]",
    "behind a gate": "[{module: se, after: /model.8, gate: residual}]",
    "some consumers": "[{module: simam, after: /model.4, consumers: /model.14}, {module: eca, before: SPPF}]",
    "folded": "[{module: coordatt, after: /model.6}, {module: cbam, after: /model.8}]",
}


def recipe(text: str) -> gsx.Recipe:
    return gsx.Recipe.from_text(text)


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_the_records_are_those_that_were_there(text: str) -> None:
    edited = gsx.apply(recipe(text), DETECTOR)
    bare = without_metadata(edited.proto())
    assert ModelFile.load(bare).insertions() == []
    adopted = gsx.adopt(bare, recipe(text))
    named = {each.id: each for each in adopted.insertions()}
    assert named.keys() == {each.id for each in edited.insertions()}
    for each in edited.insertions():
        assert set(named[each.id].initializers) == set(each.initializers)
        assert (named[each.id].nodes, named[each.id].site) == (each.nodes, each.site)
        assert named[each.id].stored == each.stored
    assert adopted.proto().graph == bare.graph
    assert gsx.remove(adopted).proto().graph == onnx.load(DETECTOR).graph


@pytest.mark.parametrize("tool", MOST)
@pytest.mark.parametrize("name", ["several places", "a chain", pytest.param("folded", marks=pytest.mark.long)])
def test_what_optimisers_made_of_it(tool: str, name: str, tmp_path: Path) -> None:
    path = gsx.apply(recipe(RECIPES[name]), DETECTOR).save(tmp_path / "model.onnx")
    adopted = gsx.adopt(without_metadata(optimised(tool, path)), recipe(RECIPES[name]))
    assert len(adopted.insertions()) == 2
    connections = Connections(GraphIndex(adopted))
    assert all(connections.check(each).passed for each in adopted.insertions())
    for each in adopted.insertions():
        each.weights(adopted)
    original = models.run(DETECTOR, size=320) if name == "a chain" else []
    removed = gsx.remove(adopted)
    onnx.checker.check_model(removed.proto(), full_check=True)
    (tmp_path / "removed.onnx").write_bytes(removed.to_bytes())
    for a, b in zip(original, models.run(tmp_path / "removed.onnx", size=320) if original else [], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_quantised_model() -> None:
    text = "[{module: se, after: /model.1, settings: {reduction: 2}, qdq: int8}]"
    edited = gsx.apply(recipe(text), quantised.half_quantised(19))
    adopted = gsx.adopt(without_metadata(edited.proto()), recipe(text))
    assert adopted.insertions()[0].qdq == edited.insertions()[0].qdq


def test_constants_that_are_nodes() -> None:
    made = models.detector(opset=9, ir_version=3)
    edited = gsx.insert(made, "se", after="/model.2", settings={"reduction": 2})
    text = "[{module: se, after: /model.2, settings: {reduction: 2}}]"
    adopted = gsx.adopt(without_metadata(edited.proto()), recipe(text))
    assert adopted.insertions()[0].nodes == edited.insertions()[0].nodes
    assert gsx.remove(adopted).proto().graph == made.graph


def test_a_block_that_is_an_output() -> None:
    edited = gsx.insert(models.chain("Relu", "Neg"), "simam", after="tensor:y")
    adopted = gsx.adopt(without_metadata(edited.proto()), recipe("[{module: simam, after: 'tensor:y'}]"))
    assert gsx.remove(adopted).proto().graph == models.chain("Relu", "Neg").graph


def test_trained_weights_are_read_from_the_model() -> None:
    model = without_metadata(gsx.insert(DETECTOR, "se", after="/model.8").proto())
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "model.8.se.fc2.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(32, 2, np.float32), bias.name))
    adopted = gsx.adopt(model, recipe("[{module: se, after: /model.8}]"))
    assert (adopted.insertions()[0].weights(adopted)["fc2.bias"] == 2).all()


def test_others_that_are_recorded_stay_so() -> None:
    edited = gsx.insert(gsx.insert(DETECTOR, "simam", after="/model.4"), "se", after="/model.8").proto()
    (entry,) = (each for each in edited.metadata_props if each.key.endswith("model.8.se"))
    edited.metadata_props.remove(entry)
    adopted = gsx.adopt(edited, recipe("[{module: se, after: /model.8}]"))
    assert [each.id for each in adopted.insertions()] == ["model.4.simam", "model.8.se"]
    assert gsx.remove(adopted).to_bytes() == DETECTOR.read_bytes()


def test_nodes_of_the_model_itself_that_are_called_so() -> None:
    """The detector has an attention of its own, which the recipe does not name."""
    own = gsx.insert(DETECTOR, "se", after="/model.4").proto()
    host = without_metadata(own)
    model = without_metadata(gsx.insert(host, "se", after="/model.8").proto())
    assert len(unrecorded(GraphIndex(ModelFile.load(model)), ["se"])) == 2
    adopted = gsx.adopt(model, recipe("[{module: se, after: /model.8}]"))
    assert [each.id for each in adopted.insertions()] == ["model.8.se"]
    assert gsx.remove(adopted).proto().graph == host.graph


# ---------------------------------------------------------------------- what is no proof


def _named(model: ModelProto, name: str) -> onnx.NodeProto:
    return next(each for each in model.graph.node if each.name == name)


def _operator(model: ModelProto) -> None:
    _named(model, "/model.8/se/Relu").op_type = "Tanh"


def _attribute(model: ModelProto) -> None:
    node = _named(model, "/model.8/se/ReduceMean")
    axes = [a for a in node.attribute if a.name == "axes"]
    if axes:
        axes[0].ints[:] = [3, 2]
    else:
        node.attribute.append(helper.make_attribute("noop_with_empty_axes", 1))


def _bypass(model: ModelProto) -> None:
    _named(model, "/model.9/cv1/conv/Conv").input[0] = "/model.8/cv2/act/Mul_output_0"


def _inner_edge(model: ModelProto) -> None:
    _named(model, "/model.8/se/Conv_1").input[0] = "/model.8/se/Conv_output_0"


def _missing_node(model: ModelProto) -> None:
    relu = _named(model, "/model.8/se/Relu")
    _named(model, "/model.8/se/Conv_1").input[0] = relu.input[0]
    model.graph.node.remove(relu)


def _more_nodes(model: ModelProto) -> None:
    last = _named(model, "/model.8/se/Mul")
    model.graph.node.append(helper.make_node("Neg", list(last.output), ["more"], name="/model.8/se/Neg"))
    _named(model, "/model.9/cv1/conv/Conv").input[0] = "more"


def _shape_of_a_weight(model: ModelProto) -> None:
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "model.8.se.fc2.bias")
    bias.CopyFrom(numpy_helper.from_array(np.zeros(1, np.float32), bias.name))


def _elsewhere(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.name.startswith("/model.8/se/"):
            for i, name in enumerate(node.input):
                node.input[i] = "/model.7/act/Mul_output_0" if name == "/model.8/cv2/act/Mul_output_0" else name


@pytest.mark.parametrize(
    "change",
    [_operator, _attribute, _bypass, _inner_edge, _missing_node, _more_nodes, _shape_of_a_weight, _elsewhere],
)
def test_what_is_not_the_block_is_not_adopted(change: Callable[[ModelProto], None]) -> None:
    model = without_metadata(gsx.insert(DETECTOR, "se", after="/model.8").proto())
    change(model)
    with pytest.raises(RequestError):
        gsx.adopt(model, recipe("[{module: se, after: /model.8}]"))


def test_a_constant_of_the_formula() -> None:
    model = without_metadata(gsx.insert(DETECTOR, "simam", after="/model.8").proto())
    (half,) = (tensor for tensor in model.graph.initializer if tensor.name == "model.8.simam.half")
    half.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(half) + 1, half.name))
    with pytest.raises(
        InsertionError, match=r"^model\.8\.simam is not as the recipe makes it.*'model\.8\.simam\.half'"
    ):
        gsx.adopt(model, recipe("[{module: simam, after: /model.8}]"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{module: cbam, after: /model.8}]", "no nodes that are named as those of an inserted cbam are"),
        ("[{module: se, after: /model.6}]", r"the recipe inserts model\.6\.se, and .* it has model\.8\.se"),
        ("[{module: se, after: /model.8, settings: {reduction: 4}}]", "has another|and not"),
        ("[{module: se, after: /model.8}, {module: se, after: /model.8}]", r"the recipe inserts model\.8\.se_1"),
        ("[{module: se, after: /model.8, gate: residual}]", "there is no node that gives"),
    ],
)
def test_another_recipe(text: str, said: str) -> None:
    model = without_metadata(gsx.insert(DETECTOR, "se", after="/model.8").proto())
    with pytest.raises(InsertionError, match=said):
        gsx.adopt(model, recipe(text))


def test_what_is_recorded_is_not_adopted_again() -> None:
    with pytest.raises(InsertionError, match="nothing to adopt"):
        gsx.adopt(gsx.insert(DETECTOR, "se", after="/model.8"), recipe("[{module: se, after: /model.8}]"))
