"""In which types inserted nodes run, and the lists for other tools."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphsurgery as gsx
from graphsurgery.errors import InsertionError, RequestError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.precision import NodeType, autocast_patterns, inserted_types, node_list
from tests.models import detector


def kept(types: list[NodeType]) -> list[str]:
    return [each.node for each in types if each.float32]


def test_statistics_stay_in_float32(gated: ModelFile) -> None:
    """From the square on, up to the sigmoid; the mean before it, the gate's product and all of SE may be narrowed."""
    types = inserted_types(gated)
    assert {each.runs_in for each in types} == {"float32"}
    operators = {each.node: each.operator for each in types}
    assert [operators[name] for name in kept(types)] == ["Mul", "ReduceMean", "Add", "Div", "Mul", "Add"]
    assert {name.rpartition("/")[0] for name in kept(types)} == {"/model.1/simam"}


def test_normalisations_are_statistics() -> None:
    types = inserted_types(gsx.insert(detector(), "simam", after="/model.1", lowering="instance-norm"))
    assert [each.operator for each in types if each.float32] == ["InstanceNormalization", "Mul", "Add"]
    assert [each.operator for each in types if not each.float32] == ["Sigmoid", "Mul"]


def test_a_softmax_is_one_and_what_is_behind_it_is_not(gated: ModelFile) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(gated.proto())
    relu = next(n for n in proto.graph.node if n.name == "/model.2/se/Relu")
    relu.op_type = "Softmax"
    assert [n for n in kept(inserted_types(ModelFile.load(proto))) if "/se/" in n] == ["/model.2/se/Relu"]


def test_what_runs_in_float16_is_not_kept_in_float32(narrow: ModelFile) -> None:
    types = inserted_types(narrow)
    assert {each.runs_in for each in types} == {"float16"}
    assert any(each.statistic for each in types)
    assert kept(types) == []
    assert node_list(types, "autocast") == node_list(types, "trtexec") == ""


def test_islands_are_kept_with_their_casts_told(narrow: ModelFile) -> None:
    """A float32 island at a float16 site: the nodes inside are kept; the Casts at its borders change the type."""
    proto = onnx.ModelProto()
    proto.CopyFrom(narrow.proto())
    sigmoid = next(n for n in proto.graph.node if n.name == "/model.1/simam/Sigmoid")
    wide = helper.make_node("Cast", [sigmoid.input[0]], ["wide"], name="/model.1/simam/Cast", to=TensorProto.FLOAT)
    back = helper.make_node("Cast", ["gate"], [sigmoid.output[0]], name="/model.1/simam/Cast_1", to=TensorProto.FLOAT16)
    sigmoid.input[0], sigmoid.output[0] = "wide", "gate"
    place = list(proto.graph.node).index(sigmoid)
    nodes = [*proto.graph.node[:place], wide, sigmoid, back, *proto.graph.node[place + 1 :]]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    for entry in proto.metadata_props:
        entry.value = entry.value.replace(
            '"/model.1/simam/Sigmoid"', '"/model.1/simam/Sigmoid","/model.1/simam/Cast","/model.1/simam/Cast_1"'
        )
    types = {each.node: each for each in inserted_types(ModelFile.load(proto))}
    assert (types["/model.1/simam/Cast"].runs_in, types["/model.1/simam/Cast"].gives) == ("float16", "float32")
    assert (types["/model.1/simam/Cast_1"].runs_in, types["/model.1/simam/Cast_1"].gives) == ("float32", "float16")
    assert kept(list(types.values())) == ["/model.1/simam/Sigmoid"]


def test_autocast_patterns_match_these_nodes_alone(gated: ModelFile) -> None:
    """AutoCast uses re.match: a pattern without an end would keep /model.1/simam/Mul_1 because of .../Mul."""
    types = inserted_types(gated)
    patterns = node_list(types, "autocast").splitlines()
    names = [node.name for node in gated.structure.graph.node]
    assert [name for name in names if any(re.match(pattern, name) for pattern in patterns)] == kept(types)
    assert not re.match(autocast_patterns(["a.b"])[0], "axb")


def test_trtexec_flags(gated: ModelFile) -> None:
    names = ",".join(f"{name}:fp32" for name in kept(inserted_types(gated)))
    assert node_list(inserted_types(gated), "trtexec").splitlines() == [
        "--precisionConstraints=obey",
        f"--layerPrecisions={names}",
        f"--layerOutputTypes={names}",
    ]


@pytest.mark.parametrize("name", ["a:b", "a,b", "a*", "'a'"])
def test_names_that_trtexec_cannot_be_given(gated: ModelFile, name: str) -> None:
    odd = [replace(each, node=name) for each in inserted_types(gated) if each.float32]
    with pytest.raises(RequestError, match="trtexec cannot be given the node name"):
        node_list(odd, "trtexec")


def test_requests_that_cannot_be_met(gated: ModelFile) -> None:
    with pytest.raises(InsertionError, match="no insertions"):
        inserted_types(ModelFile.load(detector()))
    with pytest.raises(RequestError, match="no format 'onnx'"):
        node_list(inserted_types(gated), "onnx")


def test_bfloat16_and_float64_are_named() -> None:
    types = inserted_types(gsx.insert(detector(dtype=np.float64), "se", after="/model.1", settings={"reduction": 4}))
    assert {each.runs_in for each in types} == {"float64"}
