"""The check as a whole: what is looked at, where findings are said to be, and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.errors import RequestError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt import Finding, check, findings
from graphsurgery.tensorrt.parser import ParserError, Verdict
from graphsurgery.tensorrt.view import Origin, View
from tests.graphsurgery.tensorrt.models import branches, function, given, single
from tests.models import chain, model, node, value


def by_rule(proto: onnx.ModelProto, rule: str, version: str = "10", **options: Any) -> list[Finding]:
    return [f for f in findings(ModelFile.load(proto), version, **options) if f.rule == rule]


def test_nodes_of_subgraphs_are_looked_at() -> None:
    proto = branches()
    proto.graph.node[0].attribute[1].g.node[0].op_type = "Det"
    (found,) = by_rule(proto, "operator")
    assert (found.operator, found.position, found.within) == ("Det", 0, "then_branch of /a/Op")


def test_nodes_of_functions_are_looked_at_once() -> None:
    (found,) = by_rule(function(body="Det"), "operator")
    assert (found.operator, found.position, found.within) == ("Det", None, "the function local.Gate")


def test_types_inside_subgraphs_are_known() -> None:
    """A branch that computes the square root of an integer captured from outside."""
    proto = branches()
    inner = proto.graph.node[0].attribute[1].g.node[0]  # the attributes are sorted by name
    inner.CopyFrom(node("Sqrt", ["n"], ["p"], "/a/p/Sqrt"))
    proto.graph.input.append(value("n", (4,), TensorProto.INT32))
    (found,) = by_rule(proto, "type")
    assert (found.node, found.within) == ("/a/p/Sqrt", "then_branch of /a/Op")


def test_findings_of_inserted_blocks_are_apart() -> None:
    plain = chain("Relu", "Relu", "Det", shape=(1, 4, 8, 8))
    edited = gsx.insert(plain, "simam", after="tensor:t0").proto()
    (inserted,) = [n for n in edited.graph.node if n.op_type == "InstanceNormalization"]
    inserted.op_type = "Det"
    del inserted.input[1:], inserted.attribute[:]
    report = check(ModelFile.load(edited), "11")
    assert [(f.operator, f.insertion) for f in report.inserted] == [("Det", report.insertions[0])]
    assert [(f.node, f.insertion) for f in report.others] == [("n2", None)]
    assert report.stops
    data = report.to_json()
    assert [f["node"] for f in data["inserted"]] == [inserted.name]
    assert [f["node"] for f in data["model_findings"]] == ["n2"]
    text = "\n".join(report.lines())
    assert f"inserted blocks ({report.insertions[0]}): 1 error" in text
    assert "the model itself: 1 error" in text
    assert "TensorRT 11 does not take this model" in text


def test_warnings_do_not_stop_a_build() -> None:
    report = check(ModelFile.load(chain("Relu", opset=18)), "8.6")
    assert [f.severity for f in report.findings] == ["warning"]
    assert not report.stops


def test_a_refusal_of_the_parser_stops_a_build() -> None:
    refusal = Verdict("10.9.0", False, [ParserError("n0", "Relu", "no such thing")], ["n0"])
    report = check(ModelFile.load(chain("Relu")), installed=refusal)
    assert report.findings == []
    assert report.stops
    assert "  Relu n0: no such thing" in list(report.lines())


def test_a_file_whose_nodes_are_not_in_order() -> None:
    """Shape arithmetic that stands behind its reader is arithmetic on shapes all the same."""
    nodes = [
        node("Reshape", ["x", "s2"], ["y"], "r"),
        node("Identity", ["s"], ["s2"], "i"),
        node("Shape", ["x"], ["s"], "s"),
    ]
    view = View(ModelFile.load(model(nodes, [value("x")], [value("y", None)])))
    origins = {visit.label: visit.own_origin for visit in view.visits}
    assert origins == {"r": Origin.DATA, "i": Origin.SHAPE, "s": Origin.SHAPE}
    assert [f.rule for f in findings(view.model)] == []


def test_values_of_large_constants_are_read_from_their_place(tmp_path: Path) -> None:
    """A zero point per channel of more than 1 kB is not among what is kept in memory; here it is in another file."""
    points = np.zeros(4096, np.int8)
    for last, rules in ((0, []), (1, ["quantise-zero-point"])):
        points[-1] = last
        proto = single(
            "QuantizeLinear", given(1, 1, 4096), np.ones(4096, np.float32), points, gives=TensorProto.INT8, axis=1
        )
        assert [f.rule for f in findings(ModelFile.load(proto))] == rules
        path = tmp_path / f"{last}.onnx"
        onnx.save(proto, path, save_as_external_data=True, location=f"{last}.data", size_threshold=0)
        assert [f.rule for f in findings(ModelFile.load(path))] == rules


def test_constant_nodes_are_constants() -> None:
    constant = node("Constant", [], ["axes"], "c", value=numpy_helper.from_array(np.array([2, 3])))
    nodes = [constant, node("Identity", ["axes"], ["same"], "i"), node("ReduceMean", ["x", "same"], ["y"], "m")]
    assert by_rule(model(nodes, [value("x")], [value("y", (1, 4, 1, 1))], opset=18), "reduce-axes") == []


def test_initializers_that_are_inputs_are_constants() -> None:
    proto = single("ReduceMean", given(), np.array([2, 3]), opset=18)
    proto.graph.input.append(helper.make_tensor_value_info("x1", TensorProto.INT64, [2]))
    assert by_rule(proto, "reduce-axes") == []


@pytest.mark.parametrize("version", ["8.5", "9", "12", "ten", "", "10.x"])
def test_versions_without_a_table(version: str) -> None:
    with pytest.raises(RequestError, match=r"no table for TensorRT .*known are 8\.6, 10, 11"):
        findings(ModelFile.load(chain("Relu")), version)


def test_other_wishes_that_are_unknown() -> None:
    with pytest.raises(RequestError, match="no table for the DLA 'xavier'"):
        findings(ModelFile.load(chain("Relu")), dla="xavier")
    with pytest.raises(RequestError, match="'My Op' is not the name of an operator"):
        check(chain("Relu"), plugin=["Mine", "My Op"])
    with pytest.raises(RequestError, match="no precision 'fp8'"):
        findings(ModelFile.load(chain("Relu")), precision="fp8")


def test_a_report_reads_well_in_a_shell_and_a_notebook() -> None:
    proto = branches()
    proto.graph.node[0].attribute[1].g.node[0].op_type = "Det"
    verdict = Verdict("10.9", False, [ParserError("no <Det>", "Det", "n")], [])
    report = check(proto, "10", installed=verdict)
    assert repr(report) == "<TensorRTReport of the model: TensorRT 10 does not take this model; 1 error>"
    table = report._repr_html_()
    assert table.count("<tr>") == 2 + len(list(verdict.lines())) + 1 + len(report.findings)
    assert "no &lt;Det&gt;" in table
    assert "<td>operator</td>" in table
