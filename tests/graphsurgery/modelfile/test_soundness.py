"""What a model has to be before its graph is looked at."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime
import pytest
from onnx import ModelProto, helper

import graphsurgery
from graphsurgery.errors import ModelError
from graphsurgery.modelfile import limits
from graphsurgery.modelfile.model import ModelFile
from tests import models


def of_function(version: int) -> ModelProto:
    made = models.chain("Relu", "Neg")
    imports = [helper.make_opsetid("", version)]
    made.functions.append(helper.make_function("local", "F", ["a"], ["b"], [models.node("Neg", "a", "b")], imports))
    return made


def of_ir(version: int) -> ModelProto:
    made = models.chain("Relu", "Neg")
    made.ir_version = version
    return made


VERSIONED: dict[str, Callable[[int], ModelProto]] = {
    "IR version": of_ir,
    "version of the standard operator set": lambda version: models.chain("Relu", "Neg", opset=version),
    "version of a function's operator set": of_function,
}


@pytest.mark.parametrize("version", [2**62, limits.VERSION + 1, 2**31, -1])
@pytest.mark.parametrize("what", VERSIONED)
def test_versions_that_cannot_be(what: str, version: int) -> None:
    with pytest.raises(ModelError, match=f"its {what} is {version}, which ONNX does not have"):
        ModelFile.load(VERSIONED[what](version))


def test_versions_of_the_future_are_taken() -> None:
    model = ModelFile.load(models.chain("Relu", "Neg", opset=99))
    assert model.opset == 99
    graphsurgery.insert(model, "simam", after="tensor:t0")


def test_an_operator_set_that_is_imported_twice() -> None:
    """The last one counts, as it does for onnxruntime: at 17 ReduceMean has its axes as an attribute, at 18 not."""
    for versions in ((17, 18), (18, 17)):
        made = models.chain("Relu", "Neg")
        del made.opset_import[:]
        made.opset_import.extend(helper.make_opsetid("", version) for version in versions)
        model = graphsurgery.insert(made, "se", after="tensor:t0", settings={"reduction": 2})
        assert model.opset == versions[-1]
        (mean,) = (node for node in model.structure.graph.node if node.op_type == "ReduceMean")
        assert len(mean.input) == (2 if versions[-1] >= 18 else 1)
        onnxruntime.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])


def test_two_spellings_of_the_standard_domain() -> None:
    made = models.chain("Relu", "Neg", opset=13)
    made.opset_import.append(helper.make_opsetid("ai.onnx", 17))
    assert ModelFile.load(made).opset == 17


@pytest.mark.parametrize("where", ["node", "input", "subgraph", "function"])
def test_names_that_are_not_text(where: str) -> None:
    made = models.with_if() if where == "subgraph" else of_function(17)
    if where == "subgraph":
        (branching,) = (node for node in made.graph.node if node.op_type == "If")
        branching.attribute[0].g.node[0].name = "odd name"
    elif where == "function":
        made.functions[0].node[0].name = "odd name"
    elif where == "input":
        made.graph.input[0].name = made.graph.node[0].input[0] = "odd name"
    else:
        made.graph.node[0].name = "odd name"
    model = ModelFile.load(made.SerializeToString().replace(b"odd name", b"odd nam\xff"))
    with pytest.raises(ModelError, match="not UTF-8 text"):
        model.graph  # noqa: B018 - it is worked out when it is asked for
