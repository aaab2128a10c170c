"""Rewriting: what is rewritten, what is left and why, and that only the form changes. What is found is made here."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto

import graphsurgery as gsx
from graphsurgery.cli.main import main
from graphsurgery.errors import BlockError, SelectorError, SiteError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.find import Found
from graphsurgery.graph.part import Part
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.rewriting import places, rewrite
from graphsurgery.rewriting.gains import LEAST, bad_for, measured_gain, nothing_gained
from graphsurgery.userblocks import make_block
from graphsurgery.verification.rounding import rounded_after_every_node
from tests import models
from tests.models import node, value, weight

CHANNELS = 8


def simam_and_se(dtype: Any = np.float32, size: int = 20) -> ModelProto:
    """Both as the TorchScript exporter writes the modules of most ports: sums over the map, and matrices for the SE."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape = (1, CHANNELS, size, size)

    def number(name: str, amount: float) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(np.array(amount, dtype), name)

    nodes = [
        node("ReduceMean", ["x"], ["mean"], "/simam/ReduceMean", axes=[2, 3], keepdims=1),
        node("Sub", ["x", "mean"], ["d"], "/simam/Sub"),
        node("Mul", ["d", "d"], ["d2"], "/simam/Mul"),
        node("ReduceSum", ["d2", "axes"], ["sum"], "/simam/ReduceSum", keepdims=1),
        node("Div", ["sum", "n"], ["var"], "/simam/Div"),
        node("Add", ["var", "eps"], ["v"], "/simam/Add"),
        node("Mul", ["v", "four"], ["v4"], "/simam/Mul_1"),
        node("Div", ["d2", "v4"], ["e"], "/simam/Div_1"),
        node("Add", ["e", "half"], ["e2"], "/simam/Add_1"),
        node("Sigmoid", ["e2"], ["gate"], "/simam/Sigmoid"),
        node("Mul", ["x", "gate"], ["y"], "/simam/Mul_2"),
        node("Relu", ["y"], ["r"], "/Relu"),
        node("GlobalAveragePool", ["r"], ["p"], "/se/GlobalAveragePool"),
        node("Reshape", ["p", "flat"], ["f"], "/se/Reshape"),
        node("MatMul", ["f", "se.fc1"], ["h"], "/se/fc/MatMul"),
        node("Relu", ["h"], ["h2"], "/se/fc/Relu"),
        node("MatMul", ["h2", "se.fc2"], ["g"], "/se/fc/MatMul_1"),
        node("Sigmoid", ["g"], ["g2"], "/se/fc/Sigmoid"),
        node("Reshape", ["g2", "wide"], ["g3"], "/se/Reshape_1"),
        node("Mul", ["r", "g3"], ["z"], "/se/Mul"),
        node("Relu", ["z"], ["out"], "/Relu_1"),
    ]
    weights = [
        onnx.numpy_helper.from_array(np.array([2, 3]), "axes"),
        number("n", size * size - 1),
        number("eps", 1e-4),
        number("four", 4),
        number("half", 0.5),
        onnx.numpy_helper.from_array(np.array([1, CHANNELS]), "flat"),
        weight("se.fc1", (CHANNELS, 2), dtype),
        weight("se.fc2", (2, CHANNELS), dtype),
        onnx.numpy_helper.from_array(np.array([1, CHANNELS, 1, 1]), "wide"),
    ]
    return models.model(nodes, [value("x", shape, kind)], [value("out", shape, kind)], weights)


def found_in(model: ModelFile) -> list[Found]:
    """What `find` gives for such a model."""
    kind, shape = gsx.sites(model, "tensor:y")[0].dtype, gsx.sites(model, "tensor:y")[0].shape
    feature = FeatureMap(CHANNELS, int(shape[2] or 0), int(shape[3] or 0), kind, 1)
    inserted = {name for each in model.insertions() for name in each.nodes}
    labels = ["" if each.name in inserted else each.name for each in model.graph.node]

    def part(scope: str, x: str, y: str) -> Part:
        return Part(tuple(n for n, name in enumerate(labels) if name.startswith(scope)), x, y, feature)

    matrices = [model.tensor(f"se.fc{n}").astype(np.float64).T for n in (1, 2)]
    weights = {f"fc{n}.weight": values[:, :, None, None] for n, values in enumerate(matrices, 1)}
    found = [Found("simam", part("/simam/", "x", "y"), make_block("simam"), {}, True, 1e-7, ("sums leave float16",))]
    if any(label.startswith("/se/") for label in labels):
        block = make_block("se", {"reduction": 4, "bias": False})
        found.append(Found("se", part("/se/", "r", "z"), block, weights, True, 1e-7))
    return [each for each in found if each.part.nodes]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find", found_in)


def run(model: ModelProto | ModelFile, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = ort.InferenceSession(ModelFile.load(model).to_bytes()).run(None, {"x": x})[0]
    return found


def image(dtype: Any, size: int = 20, scale: float = 1.0) -> np.ndarray[Any, Any]:
    return (scale * np.random.default_rng(0).standard_normal((1, CHANNELS, size, size))).astype(dtype)


def with_an_early_constant() -> ModelFile:
    """The same, with a Constant node before the SimAM that only the SE reads."""
    given = simam_and_se()
    nodes = list(given.graph.node)
    (reads,) = (each for each in nodes if each.name == "/se/fc/Relu")
    reads.input[0] = "h_1"
    nodes.insert(nodes.index(reads), node("Mul", ["h", "one"], ["h_1"], "/se/fc/Mul"))
    nodes.insert(
        1, node("Constant", [], ["one"], "/Constant", value=onnx.numpy_helper.from_array(np.float32(1), "one"))
    )
    del given.graph.node[:]
    given.graph.node.extend(nodes)
    return ModelFile.load(given)


# ---------------------------------------------------------------------- what is rewritten


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_only_the_form_changes(target: str) -> None:
    model = simam_and_se()
    done = rewrite(ModelFile.load(model), target=target)
    assert [each.found.place for each in done.rewritten] == ["simam", "se"]
    onnx.checker.check_model(done.model.proto(), full_check=True)
    np.testing.assert_allclose(run(done.model, image(np.float32)), run(model, image(np.float32)), rtol=1e-5, atol=1e-5)
    assert gsx.remove(done.model).to_bytes() == model.SerializeToString()


def test_verify_compares_with_what_stood_there() -> None:
    done = rewrite(ModelFile.load(simam_and_se()))
    report = gsx.verify(done.model, providers="cpu")
    assert report.passed
    assert all(
        any(row.mode == "what it replaced" and row.comparisons for row in each.rows) for each in report.insertions
    )


def test_verify_tells_where_what_stood_there_computed_something_else() -> None:
    """As if the record had been made for another block than the one that stood there."""
    model = simam_and_se()
    next(each for each in model.graph.initializer if each.name == "half").CopyFrom(
        onnx.numpy_helper.from_array(np.array(0.75, np.float32), "half")
    )
    report = gsx.verify(rewrite(ModelFile.load(model), only=["simam"]).model, providers="cpu")
    (insertion,) = report.insertions
    assert not report.passed
    assert [row.mode for row in insertion.rows if row.verdict == "failed"] == ["what it replaced"]


def test_a_float16_gate_that_was_constant_is_right_afterwards() -> None:
    """Every node in float16, as on a GPU: the sum of squares overflows, and the gate is sigmoid(0.5) everywhere."""
    model = simam_and_se(np.float16, size=80)
    del model.graph.node[12:]
    model.graph.node[-1].output[0] = "out"
    done = rewrite(ModelFile.load(model))
    x = image(np.float16, 80, scale=20.0)
    outputs = []
    for each in (model, done.model.proto()):
        session = ort.InferenceSession(rounded_after_every_node(each).SerializeToString(), _plain())
        outputs.append(session.run(None, {"x": x.astype(np.float32)})[0])
    wide = x.astype(np.float64)
    squares = (wide - wide.mean((2, 3), keepdims=True)) ** 2
    energy = squares / (4 * (squares.sum((2, 3), keepdims=True) / (80 * 80 - 1) + 1e-4)) + 0.5
    expected = np.maximum(wide / (1 + np.exp(-energy)), 0)
    constant = np.maximum(wide * 0.6225, 0)
    np.testing.assert_allclose(outputs[0], constant, rtol=2e-3, atol=1e-2)
    np.testing.assert_allclose(outputs[1], expected, rtol=2e-3, atol=1e-2)
    assert np.abs(expected - constant).max() > 5
    assert gsx.remove(done.model).to_bytes() == model.SerializeToString()


def _plain() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def test_float16_outputs_stay_within_tolerance() -> None:
    model = simam_and_se(np.float16)
    done = rewrite(ModelFile.load(model))
    assert len(done.rewritten) == 2
    np.testing.assert_allclose(run(done.model, image(np.float16)), run(model, image(np.float16)), rtol=2e-3, atol=2e-3)


# ---------------------------------------------------------------------- what is left


def test_only_what_is_named() -> None:
    model = ModelFile.load(simam_and_se())
    assert [each.module for each in gsx.rewrite(model, only="se").insertions()] == ["se"]
    assert [each.module for each in gsx.rewrite(model, only="/simam").insertions()] == ["simam"]
    assert [each.module for each in gsx.rewrite(model, module="se").insertions()] == ["se"]
    with pytest.raises(SiteError, match="no attention that was found; those that were found are simam, se"):
        gsx.rewrite(model, only="tensor:r")
    with pytest.raises(SelectorError, match="no module of the model matches"):
        gsx.rewrite(model, only="/sse")
    with pytest.raises(BlockError, match="there is no block 'sse'"):
        gsx.rewrite(model, module="sse")


def test_what_is_not_proven_or_not_closed_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    model = simam_and_se()
    model.graph.output.append(value("gate", (1, CHANNELS, 20, 20)))
    loaded = ModelFile.load(model)
    alike = [found_in(loaded)[0], Found("se", found_in(loaded)[1].part, None, note="a gate of its own kind")]
    monkeypatch.setattr(places, "find", lambda model: alike)
    done = rewrite(loaded)
    assert done.model is loaded
    reasons = {each.found.place: each.reason for each in done.left}
    assert reasons["se"] == "a gate of its own kind"
    assert reasons["simam"] == "it reads 'x' and gives 'gate', 'y', where a block reads one tensor and gives one"


def test_what_gains_nothing_is_left_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ModelFile.load(rewrite(ModelFile.load(simam_and_se()), only=["se"]).model.to_bytes())
    bare = plain.proto()
    del bare.metadata_props[:]
    model = ModelFile.load(bare)
    nodes = tuple(n for n, each in enumerate(model.graph.node) if each.name.startswith("/se/se/"))
    (named,) = {
        node.input[1] for node in model.graph.node if node.op_type == "Conv" and node.input[1].endswith("fc1.weight")
    }
    weights = {key: model.tensor(named.replace("fc1.weight", key)) for key in ("fc1.weight", "fc2.weight")}
    block = make_block("se", {"reduction": 4, "bias": False})
    found = Found("se.se", Part(nodes, "r", "z", FeatureMap(CHANNELS, 20, 20, batch=1)), block, weights, True, 0.0)
    monkeypatch.setattr(places, "find", lambda model: [found])
    done = rewrite(model)
    assert [each.reason for each in done.left] == ["it has the same operators as the template"]
    forced = rewrite(model, force_form=True)
    assert [each.found.place for each in forced.rewritten] == ["se.se"]
    assert gsx.remove(forced.model).to_bytes() == model.to_bytes()


@pytest.mark.parametrize(
    ("target", "before", "after", "findings", "gains"),
    [
        ("tensorrt", ["Mul", "Add", "Relu"], ["Mul", "Add"], (), True),
        ("tensorrt", ["Mul", "Add"], ["Mul", "Add", "Relu"], (), False),
        ("tensorrt", ["Mul", "Add"], ["Mul", "Add"], ("its sum leaves float16",), True),
        ("onnxruntime", ["Mul", "Add"], ["Add", "Mul"], (), False),
    ],
)
def test_gains(target: str, before: Sequence[str], after: Sequence[str], findings: Sequence[str], gains: bool) -> None:
    feature = FeatureMap(256, 20, 20, batch=1)
    assert (nothing_gained(make_block("simam"), feature, target, before, after, findings) == "") is gains


def test_what_falls_back_from_a_dla_counts_for_a_dla() -> None:
    findings = ("[dla-operator] Expand: Expand runs on the GPU instead", "its sum leaves float16")
    assert bad_for("dla", findings) == list(findings)
    assert bad_for("tensorrt", findings) == bad_for("onnxruntime", findings) == ["its sum leaves float16"]


def test_a_gain_for_onnxruntime_is_what_was_measured_at_the_nearest_size() -> None:
    block = make_block("se")
    linear = ["Gemm", "Gemm", "GlobalAveragePool", "Mul", "Relu", "Reshape", "Reshape", "Sigmoid", "Expand"]
    for channels, side, size in ((256, 20, "256x20x20"), (48, 96, "64x80x80"), (960, 7, "256x20x20")):
        measured = measured_gain(block, FeatureMap(channels, side, side), linear)
        assert measured is not None
        assert measured[0] == size
        assert measured[1] > LEAST


def test_a_place_that_only_find_knows_can_be_named() -> None:
    model = ModelFile.load(simam_and_se())
    (insertion,) = gsx.insert(model, "eca", in_place_of="tensor:z").insertions()
    assert (insertion.site.path, insertion.origin) == ("/se", "in place of 8 nodes")
    with pytest.raises(SiteError, match="is no attention that was found, and no module"):
        gsx.insert(model, "eca", in_place_of="tensor:r")


# ---------------------------------------------------------------------- the command


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(simam_and_se(), tmp_path / "model.onnx")
    assert main(["rewrite", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out.onnx"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(each["place"], each["id"], each["nodes_before"]) for each in said["rewritten"]] == [
        ("simam", "simam.simam", 11),
        ("se", "se.se", 8),
    ]
    assert all(each["nodes_after"] < each["nodes_before"] and each["parity"]["passed"] for each in said["rewritten"])
    assert said["left"] == []
    assert main(["remove", str(tmp_path / "out.onnx")]) == 0
    assert "rewritten from 11 nodes" in capsys.readouterr().out
    assert main(["remove", str(tmp_path / "out.onnx"), "--all", "-o", str(tmp_path / "back.onnx")]) == 0
    assert (tmp_path / "back.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_where_nothing_is_rewritten_the_file_has_the_bytes_of_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "find", lambda model: [])
    onnx.save(simam_and_se(), tmp_path / "model.onnx")
    assert main(["rewrite", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out.onnx")]) == 0
    assert "nothing was rewritten" in capsys.readouterr().out
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_attention_is_taken_out_by_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(simam_and_se(), tmp_path / "model.onnx")
    assert (
        main(["remove", str(tmp_path / "model.onnx"), "--found", "se", "-o", str(tmp_path / "out.onnx"), "--json"]) == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert said["removed"] == [{"id": "se.nothing", "place": "/se", "nodes": 8}]
    assert main(["remove", str(tmp_path / "out.onnx"), "--found", "se", "--all"]) == 2
    assert "not several of them" in capsys.readouterr().err


def test_without_onnxruntime_nothing_can_be_proven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    onnx.save(simam_and_se(), tmp_path / "model.onnx")
    assert main(["rewrite", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out.onnx")]) == 3
    assert "onnxruntime" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


# ---------------------------------------------------------------------- and undone


def test_a_constant_from_before_another_block_goes_back_to_its_place() -> None:
    given = with_an_early_constant()
    model = rewrite(given, force_form=True).model
    ids = [each.id for each in model.insertions()]
    assert len(ids) == 2
    for first, then in (ids, reversed(ids)):
        assert gsx.remove(gsx.remove(model, [first]), [then]).to_bytes() == given.to_bytes()


def test_a_block_before_an_inserted_one_is_undone_alone() -> None:
    before = gsx.insert(simam_and_se(), "eca", after=["tensor:z"])
    result = rewrite(before, force_form=True)
    ids = [each.id for each in result.insertions]
    assert len(ids) == 2
    assert gsx.remove(result.model, ids).to_bytes() == before.to_bytes()
