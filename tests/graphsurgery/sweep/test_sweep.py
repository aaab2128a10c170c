"""Sweep: its cells, figures, files, what is kept of an earlier run, and what is refused. No test asserts a time."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import graphsurgery as gsx
from graphsurgery.errors import (
    BlockError,
    CheckFailed,
    MissingProvider,
    OutputError,
    RecipeError,
    RequestError,
    SelectorError,
)
from graphsurgery.sweep import latency, running
from graphsurgery.sweep.asked import requested
from graphsurgery.sweep.report import check_fitting
from graphsurgery.tensorrt import check as tensorrt_check
from tests.models import detector, model, node, value, weight

DETECTOR = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"
FEW: dict[str, Any] = {"rounds": 2, "warm_up": 0, "threads": 1}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[gsx.Sweep, Path]:
    """Two blocks at two columns of the detector, of which SE does not fit into one; and the folder of the report."""
    folder = tmp_path_factory.mktemp("sweep") / "report"
    wanted = ["params=100", "float16"]
    return gsx.sweep(
        DETECTOR, ["simam", "se"], after=["/model.8", "C2f[*]"], output=folder, budget=wanted, **FEW
    ), folder


def cell(found: gsx.Sweep, module: str, place: str) -> dict[str, Any]:
    (one,) = [each for each in found.to_json()["cells"] if (each["module"], each["place"]) == (module, place)]
    return dict(one)


def test_a_column_is_one_selector_however_many_places_it_names(done: tuple[gsx.Sweep, Path]) -> None:
    found, _ = done
    assert [(row["module"], row["place"], row["state"]) for row in found.rows] == [
        ("simam", "/model.8", "done"),
        ("se", "/model.8", "done"),
        ("simam", "C2f[*]", "done"),
        ("se", "C2f[*]", "failed"),
    ]
    one, several = found.to_json()["columns"]
    assert len(one["places"]) == 1 < len(several["places"]) == len(cell(found, "simam", "C2f[*]")["insertions"])
    assert "a reduction of 16 leaves no hidden channel" in found.failed[0]["reason"]


def test_figures_are_those_of_the_model_with_the_block(done: tuple[gsx.Sweep, Path]) -> None:
    found, _ = done
    changed = gsx.insert(DETECTOR, "se", after="/model.8")
    (insertion,) = changed.insertions()
    row = cell(found, "se", "/model.8")
    assert row["insertions"] == [insertion.id]
    assert row["nodes"] == len(insertion.nodes)
    assert row["parameters"] == insertion.parameters
    assert row["growth"] == changed.size - DETECTOR.stat().st_size
    assert row["block_macs"] == 2 * 32 * 2  # 32 channels to 2, and back
    assert row["model_macs"] == found.to_json()["model"]["macs"] + row["block_macs"]
    assert (row["parity"]["passed"], row["float16"]["verdict"], row["dla"]) == (True, "safe", [])
    for version, verdict in row["tensorrt"].items():
        assert verdict == {"takes": not tensorrt_check(changed, version).stops, "sentence": ""}
    assert row["float16"]["sentence"] == tensorrt_check(changed, "10", precision="fp16").summary.fp16
    assert list(row["tensorrt"]) == ["8.6", "10", "11"]
    assert set(row["latency"]["cpu"]) >= {"difference", "low", "high", "noise", "verdict"}
    assert row["latency"]["cpu"]["verdict"] == latency.NOT_ENOUGH


def own_overlap(box: Any, others: Any) -> Any:
    left, top = (np.maximum(box[n], others[:, n]) for n in (0, 1))
    right, bottom = (np.minimum(box[n], others[:, n]) for n in (2, 3))
    common = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    areas = [(each[..., 2] - each[..., 0]) * (each[..., 3] - each[..., 1]) for each in (box, others)]
    return common / (areas[0] + areas[1] - common)


def own_detections(output: Any) -> tuple[Any, Any, Any]:
    """Boxes, scores and classes in an output [1, 4 + classes, places], as Ultralytics' commands choose them."""
    rows = output[0].T.astype(np.float64)
    rows = rows[np.argsort(-rows[:, 4:].max(axis=1), kind="stable")]
    rows = rows[rows[:, 4:].max(axis=1) >= 0.25][:1000]
    x, y, w, h = rows[:, :4].T
    boxes, classes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1), rows[:, 4:].argmax(axis=1)
    kept: list[int] = []
    for i in range(len(rows)):
        same = [k for k in kept if classes[k] == classes[i]]
        if not same or own_overlap(boxes[i], boxes[same]).max() <= 0.7:
            kept.append(i)
    return boxes[kept[:300]], rows[kept[:300], 4:].max(axis=1), classes[kept[:300]]


def own_drift(before: Any, after: Any) -> tuple[float, list[float], list[float], int, int]:
    """Relative error, moves of boxes, differences of scores, detections in one alone, and detections before."""
    relative = float(np.sqrt(((after.astype(float) - before) ** 2).sum() / (before.astype(float) ** 2).sum()))
    (boxes, scores, classes), (others, other_scores, other_classes) = own_detections(before), own_detections(after)
    free, moves, apart = set(range(len(others))), [], []
    for box, score, kind in zip(boxes, scores, classes, strict=True):
        overlap = own_overlap(box, others)
        near = [j for j in free if other_classes[j] == kind and overlap[j] > 0.5]
        if near:
            j = max(near, key=lambda each: overlap[each])
            free.remove(j)
            moves.append(float(abs(box - others[j]).max()))
            apart.append(abs(score - other_scores[j]))
    return relative, moves, apart, len(boxes) - len(moves) + len(free), len(boxes)


@pytest.mark.parametrize("block", ["simam", "se"])
def test_drift_is_what_a_script_of_ones_own_finds(done: tuple[gsx.Sweep, Path], block: str) -> None:
    found, _ = done
    changed = gsx.insert(DETECTOR, block, after="/model.8").to_bytes()
    sides = [onnxruntime.InferenceSession(each) for each in (DETECTOR.read_bytes(), changed)]
    image = np.random.default_rng(0).random((1, 3, 320, 320)).astype(np.float32)
    relative, moves, apart, differing, before = own_drift(*(side.run(None, {"images": image})[0] for side in sides))
    drift = cell(found, block, "/model.8")["drift"]
    assert drift["default"]["relative"] == pytest.approx(relative, rel=1e-4)
    assert drift["default"]["boxes"] == pytest.approx(max(moves), rel=1e-3)
    assert drift["default"]["scores"] == pytest.approx(max(apart), rel=1e-3)
    assert (drift["default"]["changed"], drift["default"]["detections"]) == (differing, before)
    assert before > 0
    assert drift["gate"] == {"relative": 0.0, "boxes": 0.0, "scores": 0.0, "changed": 0} | {
        "detections": before,
        "reason": "",
    }
    assert drift["calibrated"]["relative"] > 0


def test_macs_agree_with_a_count_by_hand(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], "conv", group=2, pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["a"], ["b"], "mean"),
        node("Flatten", ["b"], ["c"], "flat"),
        node("Gemm", ["c", "v"], ["y"], "dense", transB=1),
    ]
    weights = [weight("w", (6, 2, 3, 3)), weight("v", (5, 6))]
    made = model(nodes, [value("x", ("n", 4, "h", "w"))], [value("y", ("n", 5))], weights)
    onnx.save(made, tmp_path / "m.onnx")
    found = gsx.sweep(tmp_path / "m.onnx", "simam", after="tensor:a", shapes={"x": (2, 4, 8, 7)}, **FEW).to_json()
    assert found["model"]["macs"] == 2 * 6 * 8 * 7 * 2 * 9 + 2 * 6 * 5
    assert found["model"]["largest_activation"] == {"shape": [2, 6, 8, 7], "bytes": 2 * 6 * 8 * 7 * 4}
    assert found["detections"] is None
    assert found["cells"][0]["drift"]["default"]["boxes"] is None


def test_files(done: tuple[gsx.Sweep, Path], tmp_path: Path) -> None:
    found, folder = done
    assert json.loads((folder / "report.json").read_text()) == found.to_json()
    assert found.to_json()["complete"] is True
    rows = list(csv.DictReader((folder / "report.csv").open()))
    assert [row["module"] for row in rows] == ["simam", "se", "simam", "se"]
    assert rows[0]["latency_cpu_verdict"] == latency.NOT_ENOUGH
    assert len((folder / "report.md").read_text().splitlines()) == 2 + len(rows)
    tex = (folder / "report.tex").read_text()
    assert r"\toprule" in tex
    assert r"\%" in tex
    assert (found.save(tmp_path / "again") / "report.csv").read_bytes() == (folder / "report.csv").read_bytes()
    page = (folder / "report.html").read_text()
    assert page == (tmp_path / "again" / "report.html").read_text()
    assert page.count("/model.8") >= len(rows) // 2
    assert "<svg" in page
    assert "<table>" in found._repr_html_()


def test_budgets_mark_and_rank(done: tuple[gsx.Sweep, Path]) -> None:
    found, _ = done
    assert [row["fits"] for row in found.rows] == [True, False, True, False]
    assert cell(found, "se", "/model.8")["misses"] == ["params 162 > 100"]
    assert {each["rank"] for each in found.best(9)} == {1, 2}
    check_fitting(found)


def test_commands_and_recipes_make_the_cells(done: tuple[gsx.Sweep, Path]) -> None:
    row = cell(done[0], "se", "/model.8")
    assert row["command"].startswith(f"graphsurgery insert {DETECTOR} --module se --after /model.8 -o ")
    made = gsx.apply(gsx.Recipe.of(row["recipe"]), DETECTOR)
    assert made.to_bytes() == gsx.insert(DETECTOR, "se", after="/model.8").to_bytes()


def test_settings_are_for_all_blocks_that_have_them_or_for_one() -> None:
    given = {"se.reduction": 8, "reduction": 4}
    cells = requested(["se", "cbam[timm]", "simam"], ["/model.8"], None, given, {})
    assert [each.module for each in cells] == ["se reduction=8", "cbam[timm] reduction=4", "simam"]
    assert "--module se --after /model.8 --set reduction=8 -o" in cells[0].command("m.onnx")
    assert cells[0].entries == [{"module": "se", "after": ["/model.8"], "settings": {"reduction": 8}}]
    with pytest.raises(RequestError, match=r"no block of the sweep has the hyper-parameter 'eca\.reduction'"):
        requested(["se"], ["/model.8"], None, {"eca.reduction": 8}, {})


def test_resume_keeps_what_is_known_and_tries_again_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined: list[str] = []
    original = running.examine

    def counted(cell: Any, setting: Any) -> Any:
        examined.append(cell.module)
        return original(cell, setting)

    monkeypatch.setattr(running, "examine", counted)
    gsx.sweep(DETECTOR, "simam", after="/model.8", output=tmp_path, **FEW)
    known = json.loads((tmp_path / "report.json").read_text())["cells"][0]
    found = gsx.sweep(DETECTOR, ["simam", "eca"], after="/model.8", output=tmp_path, resume=True, **FEW)
    assert examined == ["simam", "eca"]
    assert {**found.to_json()["cells"][0], "rank": 1} == {**known, "rank": 1}
    gsx.sweep(DETECTOR, "simam", after="/model.8", output=tmp_path, resume=True, **{**FEW, "seed": 1})
    assert examined == ["simam", "eca", "simam"]


def test_an_end_in_the_middle_leaves_a_valid_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "latencies", stopped)
        with pytest.raises(KeyboardInterrupt):
            gsx.sweep(DETECTOR, "simam", after="/model.8", output=tmp_path, **FEW)
    partial = json.loads((tmp_path / "report.json").read_text())
    assert (partial["complete"], partial["cells"][0]["state"]) == (False, "untimed")
    found = gsx.sweep(DETECTOR, "simam", after="/model.8", output=tmp_path, resume=True, **FEW)
    assert found.rows[0]["state"] == "done"


def test_places_without_a_common_size(tmp_path: Path) -> None:
    dynamic = tmp_path / "dynamic.onnx"
    dynamic.write_bytes(detector(image=(1, 3, "h", "w")).SerializeToString())
    places = ["/model.0", "/model.2"]  # 16 and 8 rows, as far as anybody knows
    cells = gsx.sweep(dynamic, ["simam", "aifi"], after=places, **FEW).to_json()["cells"]
    found = {(each["module"], each["place"]): each for each in cells}
    for place in places:
        assert found["simam", place]["state"] == "done"
        assert found["aifi", place]["state"] == "failed"
        assert "has a dynamic height or width; if they never vary" in found["aifi", place]["reason"]


def test_combinations(tmp_path: Path) -> None:
    recipe = tmp_path / "both.yaml"
    recipe.write_text("- {module: [simam, eca], after: /model.8}\n- {module: se, after: /model.9}\n")
    found = gsx.sweep(DETECTOR, together=recipe, **FEW).to_json()["cells"]
    assert [each["module"] for each in found] == ["simam + se", "eca + se"]
    assert [each["state"] for each in found] == ["done", "done"]
    assert len(found[0]["insertions"]) == 2
    recipe.write_text("module: se")
    with pytest.raises(RecipeError, match="no list of insertions"):
        gsx.sweep(DETECTOR, together=recipe)


@pytest.mark.long
def test_several_at_once_give_the_same(tmp_path: Path, done: tuple[gsx.Sweep, Path]) -> None:
    pytest.importorskip("joblib")
    found = gsx.sweep(DETECTOR, ["simam", "se"], after="/model.8", jobs=2, **FEW)
    for each in found.to_json()["cells"]:
        alone = cell(done[0], each["module"], "/model.8")
        for name in ("parameters", "block_macs", "growth", "drift", "parity", "tensorrt"):
            assert each[name] == alone[name], name


def test_batches_are_bounded_by_memory() -> None:
    cells = list(range(20))
    assert [len(each) for each in latency.batches(cells, 10 << 20, 4)] == [16, 4]
    assert [len(each) for each in latency.batches(cells, 1 << 30, 4)] == [1] * 20


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"modules": "simamm"}, BlockError, "did you mean simam"),
        ({"after": "/model.99"}, SelectorError, "no module of the model matches"),
        ({"after": ()}, RequestError, "after= is missing"),
        ({"budget": "latencyy=5%"}, RequestError, "there is no budget 'latencyy'"),
        ({"budget": "latency=5k"}, RequestError, "latency=5% or latency=5ms"),
        ({"budget": "float16=1"}, RequestError, "takes no value"),
        ({"rounds": 1}, RequestError, "rounds"),
        ({"images": "nowhere"}, RequestError, "does not exist"),
        ({"output": Path(__file__).parent}, OutputError, "holds something else than a report"),
        ({"output": Path(__file__)}, OutputError, "is a file"),
        ({"settings": {"size": 8}}, RequestError, "no block of the sweep has the hyper-parameter 'size'"),
        ({"settings": {"simam.size": 8}}, BlockError, "simam has no hyper-parameter 'size'"),
        ({"providers": "vitisai"}, RequestError, "there is no provider called 'vitisai'"),
        ({"providers": ["cpu", "coreml"]}, MissingProvider, "no coreml provider"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_refused_before_anything_is_measured(given: Any, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said):
        gsx.sweep(DETECTOR, **{"modules": "simam", "after": "/model.8", **FEW, **given})


def test_an_image_that_cannot_be_read_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(RequestError, match=r"broken\.png") as caught:
        gsx.sweep(DETECTOR, "simam", after="/model.8", images=tmp_path / "images", output=tmp_path / "r", **FEW)
    assert caught.value.option == "images"
    assert not (tmp_path / "r").exists()


def test_a_report_is_not_replaced_unasked(done: tuple[gsx.Sweep, Path]) -> None:
    with pytest.raises(OutputError, match="resume=True goes on"):
        gsx.sweep(DETECTOR, "simam", after="/model.8", output=done[1], **FEW)


def test_the_command(tmp_path: Path) -> None:
    words = ["-m", "simam", "--after", "/model.8", "--rounds", "2", "--warm-up", "0", "-o", "r", "--best", "1"]
    command = [sys.executable, "-m", "graphsurgery", "sweep", str(DETECTOR), *words]
    ended = subprocess.run([*command, "--budget", "nodes=9"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("block")
    assert "1. graphsurgery insert" in ended.stdout
    assert (tmp_path / "r" / "best-1.yaml").read_text() == "- module: simam\n  after:\n  - /model.8\n"
    again = subprocess.run([*command, "--resume", "--budget", "nodes=1"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 1
    assert "nothing fits every --budget: nodes 5 > 1" in again.stderr


def test_nothing_fits(done: tuple[gsx.Sweep, Path]) -> None:
    data = {**done[0].to_json(), "cells": [cell(done[0], "se", "/model.8")]}
    with pytest.raises(CheckFailed, match="params 162 > 100"):
        check_fitting(gsx.Sweep(data))
