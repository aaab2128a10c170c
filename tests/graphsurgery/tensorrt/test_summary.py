"""The three lines: will it build, and are the blocks safe in FP16 and INT8?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import graphsurgery as gsx
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt import check
from graphsurgery.tensorrt.parser import ParserError, Verdict
from graphsurgery.tensorrt.precision import inserted_types
from graphsurgery.tensorrt.summary import Summary
from tests.models import chain, detector, model, node, value
from tests.quantised import fork, quantised

FEW = {"reduction": 4}


def summary(source: onnx.ModelProto | ModelFile, version: str = "10", verdict: Verdict | None = None) -> Summary:
    report = check(source, version, installed=verdict)
    assert list(report.lines())[:3] == report.summary.lines()
    assert report.to_json()["summary"] == vars(report.summary)
    return report.summary


def test_whether_it_builds() -> None:
    assert summary(chain("Relu")).builds == (
        "yes, with TensorRT 10, as far as can be told without building it (nothing found)"
    )
    assert "(1 warning)" in summary(chain("Relu", opset=18), "8.6").builds
    assert summary(chain("Relu", "Det"), "11").builds == (
        "no; TensorRT 11 refuses it, or computes something else, at n1"
    )
    refusal = Verdict("10.9.0", False, [ParserError("n0", "Relu", "no such thing")], ["n0"])
    assert summary(chain("Relu"), verdict=refusal).builds.startswith("no; the table finds nothing, and")
    told = summary(chain("Relu"), "11", refusal).builds
    assert told.startswith("perhaps, with TensorRT 11; the table finds no error, and the parser of TensorRT 10.9.0 ")
    assert not check(chain("Relu"), "11", installed=refusal).stops


def test_without_blocks_there_is_nothing_to_say_of_them() -> None:
    told = summary(chain("Relu"))
    assert {told.fp16, told.int8} == {"no block was inserted"}


@pytest.mark.parametrize("version", ["8.6", "10", "11"])
def test_statistics_that_stay_in_float32(gated: ModelFile, version: str) -> None:
    kept = sum(each.float32 for each in inserted_types(gated))
    assert kept > 1
    told = summary(gated, version).fp16
    assert told.startswith(f"safe if {kept} of the {len(inserted_types(gated))} inserted nodes stay in float32")
    assert f"--version {version}" in told


def test_blocks_that_are_safe_as_they_are() -> None:
    made = gsx.insert(detector(dtype=np.float16), "se", after="/model.1", precision="site", settings=FEW)
    assert summary(made, "11").fp16 == "safe; no inserted node has to be kept in float32"


def test_sums_in_float16_are_not_safe() -> None:
    """SE as it would be with a sum of squares in place of its mean."""
    inserted = gsx.insert(detector(dtype=np.float16), "se", after="/model.1", settings=FEW).proto()
    ours = next(n for n in inserted.graph.node if n.op_type == "ReduceMean")
    ours.op_type = "ReduceSumSquare"
    assert summary(inserted, "11").fp16 == f"not safe; {ours.name} runs in float16 and may leave its range"
    assert summary(inserted, "11").int8.startswith("no safer than FP16")


def test_what_becomes_of_int8() -> None:
    plain = gsx.insert(fork(), "se", after="/model.1", settings=FEW)
    told = summary(plain, "11").int8
    assert told == "safe with QuantizeLinear nodes for the rest; inserted nodes stay in float"
    assert summary(plain).int8 == f"{told}, unless a calibrator includes them"
    before = quantised(fork(), "symmetric")
    told = summary(gsx.insert(before, "se", after="model.1", qdq="int8", settings=FEW)).int8
    assert told == "safe; inserted nodes run in float, and what reads them keeps its INT8 input"
    with pytest.warns(gsx.GraphSurgeryWarning, match="had a quantised input"):
        bare = gsx.insert(before, "se", after="model.1", settings=FEW)
    assert summary(bare).int8 == "safe, and slower than it could be; what reads model.1.se has lost its INT8 input"


def test_blocks_that_were_quantised_with_the_model_run_in_integers() -> None:
    inserted = gsx.insert(fork(), "se", after="/model.1", settings=FEW)
    told = summary(ModelFile.load(quantised(inserted.proto(), "symmetric"))).int8
    assert told.startswith("not known; /model.1/se/ReduceMean, /model.1/se/Conv and ")
    assert told.endswith(" run in integers, too: compare outputs for real images")


def test_types_that_are_not_known_are_not_called_safe(tmp_path: Path) -> None:
    """Of a block without weights, which would tell them."""
    nodes = [node("ReduceSum", ["x"], ["sum"]), node("Mul", ["x", "sum"], ["y"])]
    gate = model(nodes, [value("x", ("N", "C", "H", "W"))], [value("y", ("N", "C", "H", "W"))])
    onnx.save(gate, tmp_path / "gate.onnx")
    inserted = gsx.insert(detector(), tmp_path / "gate.onnx", after="/model.1").proto()
    first = next(i for i, n in enumerate(inserted.graph.node) if n.name.startswith("/model.1/gate"))
    site = inserted.graph.node[first].input[0]
    for each in inserted.graph.node[first:]:
        each.input[:] = ["hidden" if name == site else name for name in each.input]
    inserted.graph.node.insert(first, onnx.helper.make_node("Mine", [site], ["hidden"], "/mine"))
    last = next(n for n in reversed(inserted.graph.node) if n.name.startswith("/model.1/gate"))
    for each in inserted.graph.node:
        each.input[:] = ["lost" if name == last.output[0] else name for name in each.input]
    inserted.graph.node.append(onnx.helper.make_node("Mine", [last.output[0]], ["lost"], "/other"))
    del inserted.graph.value_info[:]
    assert summary(inserted).fp16.startswith("not known; the model does not tell in which type /model.1/gate/ReduceSum")


@pytest.mark.parametrize("operator", ["ReduceProd", "ReduceLogSum"])
def test_a_users_block_that_sums_or_multiplies_many_numbers(operator: str) -> None:
    inserted = gsx.insert(detector(), "se", after="/model.1", settings=FEW).proto()
    next(n for n in inserted.graph.node if n.op_type == "ReduceMean").op_type = operator
    assert summary(inserted).fp16.startswith("safe if ")
