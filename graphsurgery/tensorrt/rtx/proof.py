"""Proof: two tiny models on which the libraries have to answer right before they are believed about any other.

A wrong slot of the binding, or a library that is not what its name says, shows here and not in a verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto, TensorProto, helper

from ...modelfile.model import ModelFile
from .child import Answer, Job

_UNKNOWN = "GraphSurgeryProof"
"""an operator that nobody has"""
_LAYERS = [("Activation", "[ONNX Layer: first]", ["float32"]), ("Cast", "[ONNX Layer: second]", ["float16"])]


def jobs(*, build: bool) -> list[Job]:
    """A model that has to be taken, and built if others are to be; and one with a node that has to be refused."""
    first = helper.make_node("Relu", ["x"], ["a"], "first")
    good = [first, helper.make_node("Cast", ["a"], ["y"], "second", to=TensorProto.FLOAT16)]
    bad = [first, helper.make_node(_UNKNOWN, ["a"], ["b"], "wrong"), helper.make_node("Relu", ["b"], ["y"], "last")]
    return [
        Job(_model(good, TensorProto.FLOAT16), "a built-in model that it has to take", build),
        Job(_model(bad, TensorProto.FLOAT), "a built-in model that it has to refuse"),
    ]


def _model(nodes: Sequence[NodeProto], kind: int) -> ModelFile:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])
    y = helper.make_tensor_value_info("y", kind, [2, 4])
    graph = helper.make_graph(nodes, "proof", [x], [y])
    return ModelFile.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def fault(good: Answer, built: Answer | None, bad: Answer) -> str:
    """What is wrong with the answers to the two models; "" if nothing is."""
    layers = [(each["type"], each["metadata"], each["types"]) for each in good.get("layers", ())]
    took = good["supported"] and good["parsed"] and not good["errors"] and good["covered"] == [0, 1]
    if not took or layers != _LAYERS or good["inputs"] != {"x": [2, 4]} or good["outputs"] != ["y"]:
        return "it does not take a built-in model that it has to take"
    named = [(each["node"], each["name"], each["operator"]) for each in bad["errors"]]
    if bad["supported"] or bad["parsed"] or named != [(1, "wrong", _UNKNOWN)] or bad["covered"] != [0, 2]:
        return "it does not refuse a built-in model that it has to refuse"
    if built is not None and not (built["built"] and built["bytes"] > 0):
        return "it does not build a built-in model"
    return ""
