"""A check with NVIDIA's parser: what it refuses, what its libraries die of, and what is asked of them in vain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

import graphsurgery as gsx
from graphsurgery.errors import EnvironmentLacks, ExternalDataError, MissingDependency, RequestError
from graphsurgery.tensorrt.rtx import NotAsked, Opinion, child
from tests.models import chain, detector, model, node, value
from tests.rtx import Fake

NO_PLUGIN = [6, 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"']
NEG = {"Neg": [11, "input has the wrong type"]}


def asked(source: Any, version: str = "11", **options: Any) -> tuple[gsx.TensorRTReport, Opinion]:
    report = gsx.check(source, version, **{"parser": "rtx", **options})
    assert isinstance(report.rtx, Opinion)
    return report, report.rtx


def refused(report: gsx.TensorRTReport) -> list[tuple[str, str | None]]:
    return [(f.severity, f.node) for f in report.findings if f.rule == "nvidia-parser"]


def test_a_model_that_is_taken(rtx: Fake) -> None:
    rtx()
    report, opinion = asked(chain("Relu", "Neg"))
    assert (opinion.version, opinion.supported, opinion.build, opinion.failure) == ("1.7.1", True, None, "")
    assert (list(opinion.refusals), report.findings, report.stops) == ([], [], False)
    text = "\n".join(report.lines())
    assert "NVIDIA's parser (TensorRT for RTX 1.7.1, of the generation of TensorRT 11) takes the model" in text
    assert "says nothing about speed, TensorRT 8.6 and 10, Jetson or DLA" in text


@pytest.mark.parametrize(("version", "severity", "stops"), [("11", "error", True), ("10", "warning", False)])
def test_a_refusal_counts_for_the_generation_of_the_parser(rtx: Fake, version: str, severity: str, stops: bool) -> None:
    rtx(refused={"GraphSurgeryProof": NO_PLUGIN, **NEG})
    report, opinion = asked(chain("Relu", "Neg"), version)
    assert refused(report) == [(severity, "n1")]
    assert (opinion.supported, report.stops) == (False, stops)
    (finding,) = report.findings
    assert "input has the wrong type (in importIt)" in finding.sentence
    assert ("TensorRT 10 may take it all the same" in finding.sentence) == (version == "10")
    assert finding.instead == "a Cast in front of the node, to a type that it takes"
    assert finding.source == "NVIDIA's ONNX parser, TensorRT for RTX 1.7.1"
    assert "refuses the model, for 1 node of it" in "\n".join(report.lines())


def test_a_refused_node_of_a_block_is_told_as_the_blocks(rtx: Fake) -> None:
    rtx(refused={"GraphSurgeryProof": NO_PLUGIN, "InstanceNormalization": [9, "epsilon"]})
    made = gsx.insert(detector(), "simam", after="/model.1")
    report, _ = asked(made)
    (finding,) = report.inserted
    assert (finding.insertion, finding.operator) == ("model.1.simam", "InstanceNormalization")
    assert finding.path == "/model.1/simam"
    assert "please report" in finding.instead


def test_the_table_has_the_remedy_where_it_refuses_the_node_too(rtx: Fake) -> None:
    rtx(refused={"GraphSurgeryProof": NO_PLUGIN, "Det": [8, "false"]})
    proto = model([node("Det", ["x"], ["y"], "/a/Det")], [value("x", (2, 3, 3))], [value("y", (2,))])
    report, _ = asked(proto)
    table, parser = sorted(report.findings, key=lambda f: f.rule == "nvidia-parser")
    assert (table.severity, parser.severity) == ("error", "error")
    assert parser.instead == table.instead


def test_a_plugin_that_tensorrt_has_is_a_note(rtx: Fake) -> None:
    rtx(
        refused={
            "GraphSurgeryProof": NO_PLUGIN,
            "RoiAlign": [8, "ROIAlign plugin was not found in the plugin registry!"],
        }
    )
    inputs = [value("x", (1, 4, 8, 8)), value("rois", (3, 4)), value("which", (3,), TensorProto.INT64)]
    roi = node("RoiAlign", ["x", "rois", "which"], ["y"], "/a/Roi", output_height=2, output_width=2)
    report, opinion = asked(model([roi], inputs, [value("y", (3, 4, 2, 2))]))
    assert refused(report) == [("note", "/a/Roi")]
    assert (report.stops, opinion.supported) == (False, False)


def test_a_plugin_that_nobody_has_is_an_error(rtx: Fake) -> None:
    rtx(refused={"GraphSurgeryProof": NO_PLUGIN, "Nope": NO_PLUGIN})
    report, _ = asked(model([node("Nope", ["x"], ["y"], "/a/N")], [value("x", (1,))], [value("y", (1,))]))
    assert refused(report) == [("error", "/a/N")]


def test_nodes_that_are_refused_without_a_word(rtx: Fake) -> None:
    rtx(refused={"GraphSurgeryProof": NO_PLUGIN, **NEG}, silent=True)
    report, _ = asked(chain("Relu", "Neg", "Relu"))
    (finding,) = report.findings
    assert (finding.operator, finding.position) == ("Neg", 1)
    assert "it does not say why" in finding.sentence


def test_a_model_without_outputs_is_refused(rtx: Fake) -> None:
    rtx()
    proto = chain("Relu")
    del proto.graph.output[:]
    report, opinion = asked(proto)
    assert (opinion.supported, report.stops) == (False, True)
    assert "has no outputs" in report.findings[0].sentence


def test_what_an_inserted_block_became(rtx: Fake) -> None:
    rtx()
    made = gsx.insert(detector(), "simam", after="/model.1")
    report, opinion = asked(made)
    layers = opinion.blocks["model.1.simam"]
    assert {name for layer in layers for name in layer.nodes} == set(made.insertions()[0].nodes)
    assert all(layer.runs_in == ("float32",) for layer in layers)
    assert f"model.1.simam became {len(layers)} layers (" in "\n".join(report.lines())
    told = report.to_json()["rtx"]
    assert {each["name"] for each in told["blocks"]["model.1.simam"]} == set(made.insertions()[0].nodes)
    assert told["silent_on"] == ["speed", "TensorRT 8.6 and 10", "Jetson", "DLA"]


@pytest.mark.parametrize(
    ("version", "build", "words"),
    [
        ("11", False, ", as far as can be told without building it; NVIDIA's parser takes it ("),
        ("11", True, "; NVIDIA's builder made an engine of it, for RTX cards ("),
        ("10", True, ", as far as can be told without building it ("),
    ],
)
def test_the_summary_says_what_confirms_it(rtx: Fake, version: str, build: bool, words: str) -> None:
    rtx()
    builds = asked(chain("Relu"), version, build=build)[0].summary.builds
    assert builds.startswith(f"yes, with TensorRT {version}{words}")
    assert ("NVIDIA" in builds) == (version == "11")


def test_the_summary_counts_what_the_parser_refuses(rtx: Fake) -> None:
    rtx(refused={"GraphSurgeryProof": NO_PLUGIN, **NEG})
    assert asked(chain("Relu", "Neg"))[0].summary.builds.startswith("no; TensorRT 11 refuses it")


@pytest.mark.parametrize(
    ("spoken", "version", "words"),
    [
        (
            {"refused": {"GraphSurgeryProof": NO_PLUGIN, **NEG}},
            "10",
            "NVIDIA's parser, of the generation of TensorRT 11",
        ),
        ({"cannot_build": ["Neg"]}, "8.6", "NVIDIA's builder, of the generation of TensorRT 11"),
        ({"at": ["parsed", 2, "crash"]}, "11", "NVIDIA's library died (SIGSEGV) while it parsed the model"),
        ({"at": ["built", 2, "exit"]}, "11", "NVIDIA's library died (exit code 7) while it built an engine"),
    ],
)
def test_the_summary_says_no_yes_that_is_in_doubt(rtx: Fake, spoken: dict[str, Any], version: str, words: str) -> None:
    rtx(**spoken)
    report, _ = asked(chain("Relu", "Neg"), version, build=True)
    told = report.summary.builds
    assert told.startswith(f"perhaps, with TensorRT {version}; the table finds no error, and {words}")
    assert not report.stops


def test_the_summary_names_each_place_once(rtx: Fake) -> None:
    rtx(refused={"GraphSurgeryProof": NO_PLUGIN, "Det": [8, "false"]})
    assert asked(chain("Relu", "Det"))[0].summary.builds.endswith("computes something else, at n1")


def test_plugins_are_a_condition_of_the_summary(rtx: Fake) -> None:
    rtx(refused={"GraphSurgeryProof": NO_PLUGIN, "Mine": NO_PLUGIN})
    report, _ = asked(chain("Relu", "Mine"), plugin="Mine")
    assert refused(report) == [("note", "n1")]
    assert report.summary.builds.startswith("yes, with TensorRT 11 and the plugins that are named below, as far as")


def test_sizes_are_for_engines(rtx: Fake) -> None:
    rtx()
    for parser in ("auto", "none"):
        with pytest.raises(RequestError, match="sizes are for engines; give build=True with shapes="):
            gsx.check(chain("Relu"), parser=parser, shapes="x:1x3")


# ---------------------------------------------------------------------- engines


def test_an_engine_that_is_built(rtx: Fake) -> None:
    rtx()
    report, opinion = asked(chain("Relu"), build=True)
    assert opinion.build is not None
    assert (opinion.build.built, opinion.build.bytes, report.stops) == (True, 1000, False)
    assert "an engine was built in" in "\n".join(report.lines())


@pytest.mark.parametrize(("version", "severity"), [("11", "error"), ("8.6", "warning")])
def test_an_engine_that_is_not_built(rtx: Fake, version: str, severity: str) -> None:
    rtx(cannot_build=["Neg"])
    report, opinion = asked(chain("Neg"), version, build=True)
    assert opinion.supported
    (finding,) = [f for f in report.findings if f.rule == "nvidia-builder"]
    assert (finding.severity, finding.node) == (severity, None)
    assert finding.sentence.endswith("no kernel for it")


def test_a_dynamic_batch_is_built_for_the_usual_sizes(rtx: Fake) -> None:
    rtx()
    relu = node("Relu", ["x"], ["y"], "/a")
    proto = model([relu], [value("x", ("N", 3))], [value("y", ("N", 3))])
    assert asked(proto, build=True)[1].build is not None
    proto = model([relu], [value("x", (1, "L"))], [value("y", (1, "L"))])
    with pytest.raises(RequestError, match="say which sizes it has: shapes='x:MIN,USUAL,MAX'"):
        asked(proto, build=True)


# ---------------------------------------------------------------------- libraries that fail


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("crash", r"died \(SIGSEGV\) while it parsed the model"),
        ("exit", r"died \(exit code 7\) while it parsed the model"),
        ("hang", r"did not come to an end within 2 s while it parsed the model"),
        ("no memory is left", "cannot be used: no memory is left"),
    ],
)
def test_a_library_that_fails_on_the_model(rtx: Fake, monkeypatch: pytest.MonkeyPatch, what: str, words: str) -> None:
    monkeypatch.setitem(child.PATIENCE, child.PARSE, 2.0)
    rtx(at=["parsed", 2, what])
    report, opinion = asked(chain("Relu"))
    assert (opinion.supported, report.stops) == (None, False)
    (finding,) = report.findings
    assert (finding.rule, finding.severity) == ("nvidia-library", "warning")
    assert re.search(words, finding.sentence)
    assert "gives no verdict" in "\n".join(report.lines())


def test_a_verdict_that_is_required_and_not_given(rtx: Fake) -> None:
    rtx(at=["parsed", 2, "crash"])
    with pytest.raises(EnvironmentLacks, match=r"died \(SIGSEGV\) while it parsed the model: there is no verdict"):
        asked(chain("Relu"), require_parser=True)


def test_a_library_that_dies_while_it_builds(rtx: Fake) -> None:
    rtx(at=["built", 2, "crash"])
    report, opinion = asked(chain("Relu"), build=True)
    assert (opinion.supported, opinion.build, report.stops) == (True, None, False)
    assert "died (SIGSEGV) while it built an engine of the model" in report.findings[0].sentence


@pytest.mark.parametrize(
    ("spoken", "words"),
    [
        ({"version": 10800}, "not to be believed here .*: it says that its version is 10800"),
        ({"refused": {}}, "it does not refuse a built-in model that it has to refuse"),
        ({"refused": {"Relu": NO_PLUGIN}}, "it does not take a built-in model that it has to take"),
        ({"refused": {"Relu": NO_PLUGIN, "GraphSurgeryProof": NO_PLUGIN}}, "it does not take a built-in model"),
        ({"cannot_build": ["Relu"]}, "it does not build a built-in model"),
        ({"at": ["loaded", 0, "crash"]}, r"died \(SIGSEGV\) while it was loaded"),
        ({"at": ["loaded", 0, "a symbol is missing"]}, "cannot be used: a symbol is missing"),
        ({"at": ["parsed", 0, "crash"]}, "while it parsed a built-in model that it has to take"),
        ({"at": ["built", 0, "exit"]}, "while it built an engine of a built-in model that it has to take"),
    ],
)
def test_libraries_that_do_not_prove_themselves_are_left_out(rtx: Fake, spoken: dict[str, Any], words: str) -> None:
    rtx(**spoken)
    if "cannot_build" in spoken or "built" in spoken.get("at", ()):
        with pytest.raises(EnvironmentLacks, match=words):
            gsx.check(chain("Relu", "Neg"), "11", parser="auto", build=True)
        return
    report = gsx.check(chain("Relu", "Neg"), "11", parser="auto")
    assert isinstance(report.rtx, NotAsked)
    assert re.search(words, report.rtx.reason)
    assert report.findings == []
    assert "NVIDIA's parser was not asked: " in "\n".join(report.lines())


def test_no_process_can_be_started(rtx: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    rtx()
    monkeypatch.setattr(child, "command", lambda: ["/no/such/python"])
    with pytest.raises(EnvironmentLacks, match="no process can be started for NVIDIA's parser: No such file"):
        gsx.check(chain("Relu"), parser="rtx")


# ---------------------------------------------------------------------- where it is not asked


@pytest.mark.usefixtures("no_rtx")
def test_a_parser_that_is_not_installed() -> None:
    report = gsx.check(chain("Relu"), parser="auto")
    assert isinstance(report.rtx, NotAsked)
    assert report.to_json()["rtx"] == {"asked": False, "reason": report.rtx.reason}
    assert 'is not installed; pip install "graphsurgery[parser]"' in report.rtx.reason
    for wanted in ({"parser": "rtx"}, {"require_parser": True}, {"build": True}):
        with pytest.raises(MissingDependency, match="is not installed"):
            gsx.check(chain("Relu"), **{"parser": "auto", **wanted})  # type: ignore[arg-type]


def test_a_parser_that_is_not_wanted(rtx: Fake) -> None:
    rtx(at=["loaded", 0, "crash"])
    report = gsx.check(chain("Relu"))
    assert report.rtx is None
    assert report.to_json()["rtx"] is None
    with pytest.raises(RequestError, match="build=True needs NVIDIA's parser; drop parser='none'"):
        gsx.check(chain("Relu"), build=True)
    with pytest.raises(RequestError, match="require_parser=True needs"):
        gsx.check(chain("Relu"), require_parser=True)
    with pytest.raises(RequestError, match="there is no parser 'trt'; it is one of auto, rtx, none"):
        gsx.check(chain("Relu"), parser="trt")


def test_external_data_that_is_not_there(rtx: Fake, tmp_path: Path) -> None:
    rtx()
    proto = with_external_data()
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    report = gsx.check(tmp_path / "m.onnx", parser="auto")
    assert isinstance(report.rtx, NotAsked)
    with pytest.raises(ExternalDataError, match=r"weights\.bin"):
        gsx.check(tmp_path / "m.onnx", parser="rtx")
    with pytest.raises(ExternalDataError, match="in memory cannot be found; load it from its file"):
        gsx.check(proto, parser="rtx")
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    assert isinstance(gsx.check(tmp_path / "m.onnx", parser="rtx").rtx, Opinion)


def with_external_data() -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="weights.bin")
    add = node("Add", ["x", "w"], ["y"], "/a/Add")
    return model([add], [value("x", (3,))], [value("y", (3,))], [weight])
