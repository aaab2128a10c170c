"""NVIDIA's libraries themselves: faults are named at the right node, and every block of the catalogue is taken."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.api import carry_out
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt.rtx import Opinion, child
from graphsurgery.tensorrt.rtx.libraries import PACKAGE, find
from tests.exports import NAMES, VARIANTS, export
from tests.graphsurgery.tensorrt.test_blocks import BLOCKS, SITE, inserted
from tests.models import model, node, value
from tests.quantised import quantised
from tests.rtx import needs_rtx
from tests.test_every_site import catalogue
from tests.test_whole_catalogue import every_block

resource = pytest.importorskip("resource")  # which Windows has not

pytestmark = needs_rtx
MAP = (1, 4, 8, 8)


def asked(source: Any, version: str = "11", **options: Any) -> tuple[gsx.TensorRTReport, Opinion]:
    report = gsx.check(source, version, parser="rtx", **options)
    assert isinstance(report.rtx, Opinion)
    return report, report.rtx


def between(*nodes: onnx.NodeProto, initializers: Sequence[onnx.TensorProto] = (), **more: Any) -> onnx.ModelProto:
    """x -> Relu -> a -> the nodes -> b -> Relu -> y."""
    around = [node("Relu", ["x"], ["a"], "/before"), *nodes, node("Relu", ["b"], ["y"], "/behind")]
    inputs = [value("x", MAP), *more.pop("inputs", ())]
    return model(around, inputs, [helper.make_tensor_value_info("y", 1, None)], list(initializers), **more)


def array(name: str, values: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def in_a_branch() -> onnx.ModelProto:
    result = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    wrong = [helper.make_node("Abs", ["a"], ["w"], "/ok"), helper.make_node("Det", ["w"], ["r"], "/wrong")]
    then, other = (
        helper.make_graph(wrong, "then", [], result),
        helper.make_graph([helper.make_node("Neg", ["a"], ["r"], "/other")], "otherwise", [], result),
    )
    choice = node("If", ["c"], ["b"], "/choice", then_branch=then, else_branch=other)
    return between(choice, inputs=[helper.make_tensor_value_info("c", TensorProto.BOOL, [])])


def in_a_function() -> onnx.ModelProto:
    body = [helper.make_node("Abs", ["u"], ["w"], "/ok"), helper.make_node("Det", ["w"], ["v"], "/wrong")]
    proto = between(node("Volume", ["a"], ["b"], "/call", domain="mine"))
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    proto.functions.append(helper.make_function("mine", "Volume", ["u"], ["v"], body, [helper.make_opsetid("", 17)]))
    return proto


def quantised_bias() -> onnx.ModelProto:
    """An int32 bias behind a DequantizeLinear, as onnxruntime's quantiser writes it."""
    weights = [array("w", np.ones((4, 4, 1, 1))), array("bias", [1, 2, 3, 4], np.int32), array("scale", 0.1)]
    dequantise = node("DequantizeLinear", ["bias", "scale"], ["real"], "/wrong")
    return between(dequantise, node("Conv", ["a", "w", "real"], ["b"], "/conv"), initializers=weights)


FAULTS = {
    "an operator that there is not": (
        between(node("Nothing", ["a"], ["b"], "/wrong")),
        "Plugin not found|Op type Nothing is not",
    ),
    "a type": (quantised_bias(), "Int32"),
    "an attribute": (between(node("LpPool", ["a"], ["b"], "/wrong", kernel_shape=[2, 2], p=3)), "Only L1 and L2"),
    "a mode": (between(node("Mod", ["a", "a"], ["b"], "/wrong", fmod=0)), "The fmod attribute is set to 0"),
    "in a branch": (in_a_branch(), "checkDet"),
    "in a function": (in_a_function(), "checkDet"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_at_its_node(name: str) -> None:
    proto, words = FAULTS[name]
    report, opinion = asked(proto)
    (finding,) = [f for f in report.findings if f.rule == "nvidia-parser"]
    assert (finding.node, finding.severity) == ("/wrong", "error")
    assert re.search(words, finding.sentence)
    assert finding.instead
    assert (finding.within is not None) == name.startswith("in a ")
    assert (opinion.supported, report.stops) == (False, True)


def test_a_fault_in_a_block_of_the_users_is_told_as_the_blocks(tmp_path: Path) -> None:
    nodes = [node("Relu", ["u"], ["t"], "ok"), node("LpPool", ["t"], ["p"], "wrong", kernel_shape=[1, 1], p=3)]
    block = model([*nodes, node("Neg", ["p"], ["v"], "last")], [value("u", MAP)], [value("v", MAP)])
    (tmp_path / "mine.onnx").write_bytes(block.SerializeToString())
    host = between(node("Neg", ["a"], ["b"], "/model.0/Neg"))
    report, _ = asked(gsx.insert(host, str(tmp_path / "mine.onnx"), after="tensor:a"))
    (finding,) = [f for f in report.inserted if f.rule == "nvidia-parser"]
    assert (finding.operator, finding.insertion) == ("LpPool", report.insertions[0])


def test_faults_behind_the_first_are_named_too() -> None:
    mods = [node("Mod", ["a", "a"], ["t"], "/first", fmod=0), node("Mod", ["t2", "a"], ["b"], "/second", fmod=0)]
    report, opinion = asked(between(mods[0], node("Neg", ["t"], ["t2"], "/good"), mods[1]), "10")
    found = {f.node: f.severity for f in report.findings if f.rule == "nvidia-parser"}
    assert found == {"/first": "warning", "/second": "warning"}
    assert [each.node for each in opinion.refusals] == [1, 3]
    assert opinion.complete


def test_what_cannot_be_told_is_said_to_be_so() -> None:
    unknown, behind = node("Nothing", ["a"], ["t"], "/first"), node("Mod", ["t", "a"], ["b"], "/second", fmod=0)
    report, opinion = asked(between(unknown, behind))
    assert [each.name for each in opinion.refusals] == ["/first"]
    assert not opinion.complete
    assert "there may be more behind those that it names" in "\n".join(report.lines())


@pytest.mark.parametrize("operator", ["RoiAlign", "DeformConv", "NonZero"])
def test_plugins_of_tensorrt_are_notes(operator: str) -> None:
    inputs = [value("x", MAP), value("rois", (3, 4)), value("which", (3,), TensorProto.INT64)]
    nodes = {
        "RoiAlign": node("RoiAlign", ["x", "rois", "which"], ["y"], "/a", output_height=2, output_width=2),
        "DeformConv": node("DeformConv", ["x", "w", "offsets"], ["y"], "/a", kernel_shape=[3, 3]),
        "NonZero": node("NonZero", ["x"], ["y"], "/a"),
    }
    inputs += [value("w", (4, 4, 3, 3)), value("offsets", (1, 18, 6, 6))]
    report, _ = asked(model([nodes[operator]], inputs, [helper.make_tensor_value_info("y", 1, None)], opset=19))
    assert [(f.severity, f.node) for f in report.findings if f.rule == "nvidia-parser"] == [("note", "/a")]
    assert not report.stops


def test_a_kernel_that_the_builder_lacks_is_a_warning() -> None:
    inputs = [value("boxes", (1, 10, 4)), value("scores", (1, 2, 10))]
    chosen = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    kept = node("NonMaxSuppression", ["boxes", "scores", "most"], ["y"], "/a")
    report, opinion = asked(model([kept], inputs, [chosen], [array("most", [5], np.int64)]), build=True)
    assert opinion.build is not None
    assert (opinion.supported, opinion.build.built, report.stops) == (True, False, False)
    assert report.summary.builds.startswith("perhaps, with TensorRT 11; ")


def test_a_model_from_standard_input_is_parsed() -> None:
    line = [sys.executable, "-m", "graphsurgery", "tensorrt", "check", "-", "--parser", "rtx"]
    given = between(node("Neg", ["a"], ["b"], "/good")).SerializeToString()
    said = subprocess.run(line, input=given, capture_output=True, check=True).stdout.decode()
    assert "takes the model" in said


def test_the_bias_of_onnxruntimes_quantiser() -> None:
    weights = [array("w", np.ones((4, 4, 1, 1))), array("bias", np.ones(4))]
    convs = [node("Conv", ["images", "w", "bias"], ["t"], "/one"), node("Conv", ["t", "w", "bias"], ["y"], "/two")]
    plain = model(convs, [value("images", MAP)], [value("y", MAP)], weights)
    report, opinion = asked(quantised(plain, "symmetric", MAP))
    refused = [f for f in report.findings if f.rule == "nvidia-parser"]
    assert {f.operator for f in refused} == {"DequantizeLinear"}
    assert all("has type Int32" in f.sentence for f in refused)
    assert opinion.complete


def test_a_model_is_built_and_the_package_not_imported() -> None:
    report, opinion = asked(inserted(BLOCKS["simam"], "float32", 17), build=True)
    assert opinion.build is not None
    assert (opinion.build.built, report.stops) == (True, False)
    assert opinion.build.bytes > 10_000
    assert PACKAGE not in sys.modules


# ---------------------------------------------------------------------- every block


def taken_whole(models: Sequence[ModelFile], *, build: bool = False) -> None:
    """All of them by one child: every node is taken, and each that computes anything became a layer."""
    said = child.answers(find(), [child.Job(each, each.insertions()[0].id, build) for each in models])
    assert next(said)["step"] == "loaded"
    for each in models:
        parsed = next(said)
        assert (parsed["supported"], parsed["parsed"], parsed["errors"]) == (True, True, [])
        assert parsed["covered"] == list(range(len(each.structure.graph.node)))
        (insertion,) = each.insertions()
        known = "\n".join(layer["metadata"] for layer in parsed["layers"])
        assert any(f"[ONNX Layer: {name}]" in known for name in insertion.nodes), insertion.module
        if build:
            assert next(said)["built"], insertion.module


def in_int8(name: str) -> ModelFile:
    """A block between quantised maps, with a pair of its own behind it."""
    scales = [array("scale", 0.05), array("zero", 0, np.int8)]
    pair = [node("QuantizeLinear", ["a", "scale", "zero"], ["q"], "/model.0/Q")]
    pair.append(node("DequantizeLinear", ["q", "scale", "zero"], ["t"], "/model.0/DQ"))
    nodes = [node("Relu", ["x"], ["a"], "/model.0/Relu"), *pair, node("Relu", ["t"], ["y"], "/model.1/Relu")]
    plain = model(nodes, [value("x", SITE)], [value("y", SITE)], scales)
    settings = {key: v for key, v in BLOCKS[name].values.items() if v is not None}
    return gsx.insert(plain, BLOCKS[name].spelled, after="tensor:t", settings=settings, qdq="int8")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_block_is_taken_whole(dtype: str) -> None:
    taken_whole([inserted(block, dtype, 17) for block in BLOCKS.values()])


def test_every_block_is_taken_whole_between_quantised_maps() -> None:
    taken_whole([in_int8(name) for name in BLOCKS])


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_block_is_built(dtype: str) -> None:
    taken_whole([inserted(block, dtype, 17) for block in BLOCKS.values()], build=True)


# ---------------------------------------------------------------------- real exports


@pytest.mark.parametrize("variant", ["simplified", "dynamo-external"])
def test_yolov8n_is_taken_in_less_than_two_seconds(variant: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [
        sys.executable,
        "-m",
        "graphsurgery",
        "tensorrt",
        "check",
        str(export("yolov8n", variant)),
        "--parser",
        "rtx",
    ]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "takes the model" in said
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


@pytest.mark.long
def test_one_yolov8n_with_every_block_is_built() -> None:
    original = ModelFile.load(export("yolov8n", "simplified"))
    edited, _ = carry_out(original, every_block("yolov8n"))
    report, opinion = asked(edited, build=True)
    assert len(report.insertions) == len(catalogue())
    assert opinion.build is not None
    assert (opinion.supported, opinion.build.built, report.stops) == (True, True, False)
    assert all(opinion.blocks[name] for name in report.insertions)


@pytest.mark.long
@pytest.mark.parametrize(("name", "variant"), [(name, variant) for name in NAMES for variant in VARIANTS])
def test_every_export_is_built_or_refused_with_the_reason(name: str, variant: str) -> None:
    report, opinion = asked(export(name, variant), build=True)
    if opinion.supported:
        assert opinion.build is not None
        assert opinion.build.built
    else:
        assert all(each.words for each in opinion.refusals)
    assert report.stops == (not opinion.supported)
