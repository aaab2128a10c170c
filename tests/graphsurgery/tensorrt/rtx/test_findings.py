"""Which node a refusal is told at: the parser names functions, subgraphs and importers in ways of its own."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.rtx import Opinion, Refusal
from graphsurgery.tensorrt.rtx.findings import findings
from graphsurgery.tensorrt.rtx.opinion import Build
from graphsurgery.tensorrt.rule import Finding
from graphsurgery.tensorrt.support import Version
from graphsurgery.tensorrt.view import View
from tests.models import chain, model, node, value

SHAPE = (1, 4)


def told(proto: onnx.ModelProto, refusal: Refusal) -> Finding:
    opinion = Opinion("1.7.1", False, [refusal])
    (found,) = findings(opinion, View(ModelFile.load(proto)).visits, Version.of("11"), [])
    return found


def calling(*functions: tuple[str, list[onnx.NodeProto]]) -> onnx.ModelProto:
    """x -> a call of each function in turn -> y; the calls are named after the functions."""
    ends = [*(f"t{i}" for i in range(1, len(functions))), "y"]
    starts = ["x", *ends[:-1]]
    calls = [node(f[0], [a], [b], f"/{f[0]}", domain="mine") for f, a, b in zip(functions, starts, ends, strict=True)]
    proto = model(calls, [value("x", SHAPE)], [value("y", SHAPE)])
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    for name, body in functions:
        proto.functions.append(helper.make_function("mine", name, ["u"], ["v"], body, [helper.make_opsetid("", 17)]))
    return proto


def body(*names: str) -> list[onnx.NodeProto]:
    """u -> Mod nodes of these names -> v."""
    ends = [*(f"w{i}" for i in range(1, len(names))), "v"]
    return [helper.make_node("Mod", [a, a], [b], n) for n, a, b in zip(names, ["u", *ends], ends, strict=False)]


def mod(name: str, *within: str, position: int = 0) -> Refusal:
    return Refusal("inputs cannot be of floating point types", 11, "importMod", position, name, "Mod", within)


def test_functions_that_call_their_nodes_alike_are_told_apart() -> None:
    proto = calling(("First", body("n0", "n1")), ("Second", body("n0", "n1")))
    found = told(proto, mod("n1", "/Second (Second)", position=1))
    assert (found.node, found.within) == ("n1", "the function mine.Second")


def test_a_node_without_a_name_is_told_by_the_call_around_it() -> None:
    found = told(calling(("Twice", body("", ""))), mod("", "/Twice (Twice)"))
    assert (found.node, found.within) == ("/Twice", None)
    assert found.sentence.startswith("NVIDIA's parser refuses a Mod in this node: inputs cannot be")
    found = told(calling(("Once", body(""))), mod("", "/Once (Once)"))
    assert (found.node, found.within) == ("Mod#0", "the function mine.Once")


def chosen(*of_then: onnx.NodeProto) -> onnx.ModelProto:
    result = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    branches = [
        helper.make_graph(nodes, "branch", [], result)
        for nodes in (of_then, [helper.make_node("Neg", ["a"], ["r"], "/other")])
    ]
    choice = node("If", ["c"], ["y"], "/choice", then_branch=branches[0], else_branch=branches[1])
    inputs = [value("x", SHAPE), helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    return model([node("Relu", ["x"], ["a"], "/before"), choice], inputs, [value("y", SHAPE)])


def test_a_node_of_a_branch_is_told_where_it_is_the_only_one() -> None:
    first = helper.make_node("Mod", ["a", "a"], ["w"])
    found = told(chosen(helper.make_node("Mod", ["a", "a"], ["r"])), mod("", position=1))
    assert (found.node, found.within) == ("Mod#0", "then_branch of /choice")
    found = told(chosen(first, helper.make_node("Mod", ["w", "w"], ["r"])), mod("", position=1))
    assert (found.node, found.within) == ("/choice", None)


@pytest.mark.parametrize(("operators", "place"), [(("Relu", "Neg"), "n1"), (("Neg", "Neg"), None)])
def test_an_importer_that_names_no_node_is_told_at_the_only_one_it_is_for(
    operators: tuple[str, ...], place: str | None
) -> None:
    found = told(chain(*operators), Refusal("unsupported", 9, "importNeg", -1, "", ""))
    assert found.node == place
    assert found.sentence.startswith(f"NVIDIA's parser refuses {'this node' if place else 'the model'}: unsupported")


@pytest.mark.parametrize(
    "words",
    [
        'creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
        "Assertion failed: plugin != nullptr: ROIAlign plugin was not found in the plugin registry!",
        "Assertion failed: creator: NonZero plugin creator version 1 was not found in plugin registry.",
        "No importer registered for op: EfficientNMS_TRT",
    ],
)
def test_a_plugin_that_the_library_lacks_is_a_note(words: str) -> None:
    found = told(chain("NonZero"), Refusal(words, 8, "", 0, "n0", "NonZero"))
    assert (found.severity, found.node) == ("note", "n0")
    assert found.sentence.endswith("; it wants a plugin, and TensorRT for RTX has none")


@pytest.mark.parametrize(
    ("words", "severity"),
    [
        ("Error Code 4: API Usage Error (K exceeds the maximum value allowed)", "error"),
        ("Network has dynamic or shape inputs, but no optimization profile has been defined.", "warning"),
        (
            "Error Code 2: Internal Error (Assertion !layerImpls.empty() failed. n has no runners that implement it)",
            "warning",
        ),
    ],
)
def test_what_does_not_follow_for_tensorrt_is_a_warning(words: str, severity: str) -> None:
    opinion = Opinion("1.7.1", True, build=Build(False, 0.1, 0, words))
    (found,) = findings(opinion, [], Version.of("11"), [])
    assert (found.rule, found.severity) == ("nvidia-builder", severity)
