"""Whether a block is connected as its record says: every edge at its ends is moved, and every move is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import graphsurgery as gsx
from graphsurgery.errors import ParityFailed
from graphsurgery.graph.index import GraphIndex
from graphsurgery.insertion import removal
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.verification.connection import Connection, Connections
from tests import models, quantised
from tests.models import node, value
from tests.optimisers import MOST, TOOLS, optimised

DETECTOR = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"


def stacked() -> ModelFile:
    model = gsx.insert(DETECTOR, "simam", after="/model.8")
    model = gsx.insert(model, "se", after=["/model.8", "/model.4"])
    return gsx.insert(model, "nam", before="/model.9")


def without_names() -> ModelFile:
    model = onnx.load(DETECTOR)
    for each in model.graph.node:
        each.name = ""
    return gsx.insert(model, "se", after="tensor:/model.4/cv2/act/Mul_output_0")


def as_an_output() -> ModelFile:
    model = onnx.load(DETECTOR)
    model.graph.output.append(value("/model.8/cv2/act/Mul_output_0", (1, 32, 10, 10)))
    return gsx.insert(model, "simam", after=["/model.8"])


def captured() -> ModelFile:
    """The site is read in a branch of an If only."""
    branch = onnx.helper.make_graph([node("Neg", ["t"], ["o"])], "b", [], [value("o", None)])
    nodes = [
        node("Relu", ["x"], ["t"], "/model.0/Relu"),
        node("Abs", ["x"], ["z"], "/model.0/Abs"),
        node("If", ["flag"], ["y"], "/model.1/If", then_branch=branch, else_branch=branch),
    ]
    flag = onnx.numpy_helper.from_array(np.array(True), "flag")
    made = models.model(nodes, [value("x")], [value("y"), value("z")], [flag])
    return gsx.insert(made, "simam", after="tensor:t")


CASES = {
    "one": lambda: gsx.insert(DETECTOR, "se", after="/model.8"),
    "several in one run": lambda: gsx.insert(DETECTOR, "simam", after="/model.{2,4,6,8}"),
    "stacked": stacked,
    "before": lambda: gsx.insert(DETECTOR, "cbam", before="/model.9"),
    "consumers": lambda: gsx.insert(DETECTOR, "se", after="/model.4", consumers="/model.14"),
    "residual": lambda: gsx.insert(DETECTOR, "se", after="/model.4", gate="residual"),
    "without names": without_names,
    "as an output": as_an_output,
    "captured": captured,
    "quantised": lambda: gsx.insert(
        quantised.half_quantised(19), "se", after="/model.1", settings={"reduction": 2}, qdq="int8"
    ),
}


def connections(model: ModelProto | ModelFile) -> dict[str, Connection]:
    loaded = ModelFile.load(model)
    found = Connections(GraphIndex(loaded))
    return {each.id: found.check(each) for each in loaded.insertions()}


def verdicts(model: ModelProto | ModelFile) -> dict[str, bool]:
    return {name: each.passed for name, each in connections(model).items()}


def moved(model: ModelFile) -> Iterator[tuple[str, ModelProto]]:
    """(what was moved, the model) for each edge into and out of a block, led elsewhere."""
    proto, index = model.proto(), GraphIndex(model)
    own = [n for n in sorted(index.active) if n not in index.insertion_of]
    for insertion in model.insertions():
        site, output = insertion.site.tensor, insertion.output_tensor
        elsewhere = [name for n in own for name in index.nodes[n].output if name not in (site, output)][:1]
        for n, each in enumerate(proto.graph.node):
            inside = each.name in insertion.nodes
            old, targets = (site, elsewhere) if inside else (output, [site, *elsewhere])
            if old not in index.reads(n):
                continue
            for target in targets:
                changed = ModelProto()
                changed.CopyFrom(proto)
                _rename_inputs(changed.graph.node[n], old, target)
                yield f"{each.name or each.op_type}: {old} -> {target}", changed


def _rename_inputs(changed: onnx.NodeProto, old: str, new: str) -> None:
    for i, name in enumerate(changed.input):
        changed.input[i] = new if name == old else name
    for graph in models.captured_graphs(changed):
        for inner in graph.node:
            _rename_inputs(inner, old, new)


@pytest.mark.parametrize("case", CASES)
def test_every_edge_at_the_ends_counts(case: str) -> None:
    model = CASES[case]()
    assert all(verdicts(model).values())
    count = 0
    for what, changed in moved(model):
        count += 1
        # a consumer without a name that reads some other tensor is not known again, and the rest of the model changed
        found = not all(verdicts(changed).values())
        assert found or (case == "without names" and not removal.unchanged(ModelFile.load(changed)).passed), what
    assert count >= 2


@pytest.mark.parametrize("tool", TOOLS)
def test_optimisers_leave_blocks_connected(tool: str, tmp_path: Path) -> None:
    """They fold, rename and merge what is around a block, its consumers too."""
    model = optimised(tool, gsx.insert(DETECTOR, "simam", after="/model.{4,8}").save(tmp_path / "model.onnx"))
    assert verdicts(model) == {"model.4.simam": True, "model.8.simam": True}
    for what, changed in moved(ModelFile.load(model)):
        assert not all(verdicts(changed).values()), what


def test_consumers_that_got_other_names() -> None:
    model = gsx.insert(DETECTOR, "se", after="/model.8").proto()
    (consumer,) = (each for each in model.graph.node if each.name == "/model.9/cv1/conv/Conv")
    consumer.name = "fused"
    assert verdicts(model) == {"model.8.se": True}
    consumer.input[0] = "/model.8/cv2/act/Mul_output_0"
    assert verdicts(model) == {"model.8.se": False}


def test_a_consumer_that_reads_the_site_beside_the_block() -> None:
    model = models.chain("Relu", "Add", "Neg")
    model.graph.node[1].input.append("t0")
    edited = gsx.insert(model, "simam", after="tensor:t0").proto()
    (adds,) = (each for each in edited.graph.node if each.name == "n1")
    adds.input[1] = "t0"
    assert verdicts(edited) == {"simam": False}


def test_a_block_on_a_dead_end() -> None:
    model = gsx.insert(DETECTOR, "simam", after="/model.8").proto()
    model.graph.node.append(node("Neg", ["/model.8/simam/Mul_1_output_0"], ["nowhere"], "end"))
    (consumer,) = (each for each in model.graph.node if each.name == "/model.9/cv1/conv/Conv")
    consumer.name, consumer.input[0] = "other", "/model.7/act/Mul_output_0"
    (connection,) = connections(model).values()
    assert not connection.passed
    assert "no output of the model depends on" in connection.sentence


def test_an_insertion_that_is_removed_from_a_stack_leaves_the_others_connected() -> None:
    model = gsx.insert(DETECTOR, "simam", after="/model.8")
    model = gsx.insert(model, "se", after=f"tensor:{model.insertions()[0].site.tensor}")
    assert verdicts(model) == {"model.8.simam": True, "model.8.cv2.se": True}
    left = gsx.remove(model, "model.8.simam")
    assert left.insertions()[0].site.consumers == ("/model.9/cv1/conv/Conv",)
    assert verdicts(left) == {"model.8.cv2.se": True}


def test_verify_fails_and_says_where() -> None:
    pytest.importorskip("torch")
    model = gsx.insert(DETECTOR, "se", after="/model.8").proto()
    (consumer,) = (each for each in model.graph.node if each.name == "/model.9/cv1/conv/Conv")
    consumer.input[0] = "/model.8/cv2/act/Mul_output_0"
    report = gsx.verify(model, providers="cpu", seeds=1, ignore_rest=True)
    assert not report.passed
    said = "'/model.9/cv1/conv/Conv' should read it, and reads '/model.8/cv2/act/Mul_output_0' in front of it instead"
    assert report.to_json()["insertions"][0]["connected"] == {"passed": False, "sentence": said}
    assert f"  connected: FAILED: {said}" in report.lines()
    with pytest.raises(ParityFailed, match="is not connected as it was inserted"):
        report.require()


@pytest.mark.parametrize("tool", MOST)
@pytest.mark.parametrize(
    "arguments", [{"module": "se", "init": "identity"}, pytest.param({"module": "coordatt"}, marks=pytest.mark.long)]
)
def test_blocks_that_share_weights_agree(tool: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    """Equal constants are merged: records name some that are not there any more."""
    pytest.importorskip("torch")
    model = DETECTOR
    for _ in range(2):
        model = gsx.insert(model, after="/model.4", gate="residual", **arguments)
    made = optimised(tool, model.save(tmp_path / "model.onnx"))
    there = {tensor.name for tensor in made.graph.initializer}
    assert not all(there.issuperset(each.initializers) for each in model.insertions())
    report = gsx.verify(made, providers="cpu", seeds=1, ignore_rest=True)
    assert report.passed, str(report)
