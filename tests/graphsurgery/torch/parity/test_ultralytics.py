"""Whole networks of Ultralytics, narrow ones, as their exporter writes them, against their checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphsurgery as gsx
from graphsurgery import torch as gt
from graphsurgery.torch.parity import WholeReport, from_checkpoint
from tests.exports.make import declare_torchvision_operators, randomise_norms

from ..nets import entry, open_gates

SIZE = 128
KINDS = {
    "yolov8n": "DetectionModel",
    "yolo26n": "DetectionModel",
    "yolov10n": "DetectionModel",
    "rtdetr-l": "RTDETRDetectionModel",
    "yolov8n-seg": "SegmentationModel",
    "yolov8n-pose": "PoseModel",
    "yolo26n-pose": "PoseModel",
    "yolov8n-obb": "OBBModel",
    "yolov8n-cls": "ClassificationModel",
}
UNITS = {
    "Classify": {"scores": "score"},
    "Segment": {"boxes": "px", "scores": "score", "mask coefficients": "own scale", "mask prototypes": "own scale"},
    "Pose": {"boxes": "px", "scores": "score", "keypoints": "px", "visibility": "score"},
    "OBB": {"boxes": "px", "scores": "score", "angle": "own scale"},
    "Detect": {"boxes": "px", "scores": "score"},
    "chosen": {"boxes": "px", "scores": "score", "classes": "exact"},
}
RECIPE = [
    entry("se", "model.4", settings={"reduction": 4}),
    entry("cbam", "model.6", settings={"reduction": 4}),
]

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics without network, in a folder of its own."""
    for name, value in {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    declare_torchvision_operators()


def network(name: str) -> Any:
    """A network with statistics like those of a trained one, and blocks whose gates are open."""
    from ultralytics.nn import tasks

    rows = tasks.yaml_model_load(f"{name}.yaml")
    torch.manual_seed(0)
    if "rtdetr" in name:
        rows["head"][-1][3][:] = ["nc", 64, 30, 4, 4, 2]
    else:
        width = 0.25 if "v10" in name else 0.125
        rows["scales"] = {"n": [*rows["scales"]["n"][:1], width, *rows["scales"]["n"][2:]]}
    made = getattr(tasks, KINDS[name])(rows, ch=3, verbose=False)
    randomise_norms(made)
    gt.attach(made.eval(), RECIPE, torch.rand(1, 3, SIZE, SIZE))
    open_gates(made)
    return made


def deployed(name: str, **options: Any) -> tuple[gsx.ModelFile, str]:
    """The file and the checkpoint, whose weights are float16."""
    from ultralytics.engine.exporter import Exporter
    from ultralytics.nn import tasks

    trained = network(name).half()
    torch.save({"epoch": -1, "ema": trained, "model": None, "train_args": {}}, "best.pt")
    base = copy.deepcopy(trained).float()
    gt.detach(base)
    base.args, base.pt_path, base.task = {"data": None}, "base.pt", tasks.guess_model_task(base)
    settings = {"format": "onnx", "imgsz": SIZE, "batch": 1, "device": "cpu", "verbose": False, "simplify": False}
    Exporter(overrides=settings | options)(model=base)
    file = gsx.ModelFile.load("base.onnx")
    ids = [each.id for each in gt.attachments(trained)]
    trained_recipe = [
        {**keys, "gate": "residual", "weights": f"best.pt:{id}"} for keys, id in zip(RECIPE, ids, strict=True)
    ]
    return gsx.Recipe.of(trained_recipe).apply(file), "best.pt"


def units(report: WholeReport) -> dict[str, str]:
    return {row.quantity: row.unit for row in report.quantities}


@pytest.mark.parametrize("name", KINDS)
def test_what_was_trained_is_what_is_deployed(name: str) -> None:
    file, checkpoint = deployed(name)
    trained = from_checkpoint(checkpoint)
    report = gt.compare(file, trained, providers="cpu")
    assert report.passed, str(report)
    kind = "chosen" if "rtdetr" in name else next(kind for kind in UNITS if kind in report.known_from)
    assert units(report) == UNITS[kind]
    assert len(report.attached) == len(report.inserted) == 2
    assert all(row.floor is not None for row in report.quantities)

    with torch.no_grad():
        trained.get_submodule("model.6.cbam").alpha.mul_(1.5)
    wrong = gt.compare(file, trained, providers="cpu")
    assert wrong.first is not None
    assert wrong.first.path == "model.6.cbam"

    trained = from_checkpoint(checkpoint)
    conv = next(f"{p}" for p, m in trained.get_submodule("model.2").named_modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        trained.get_submodule(f"model.2.{conv}").weight.mul_(1.2)
    wrong = gt.compare(file, trained, providers="cpu")
    assert wrong.first is not None
    assert wrong.first.words.startswith(f"model.2.{conv} (Conv2d)")
    assert not wrong.passed


@pytest.mark.parametrize("name", ["yolo26n", "yolov10n"])
def test_end_to_end(name: str) -> None:
    file, checkpoint = deployed(name, nms=False)
    report = gt.compare(file, from_checkpoint(checkpoint), seeds=3, providers="cpu")
    assert report.passed, str(report)
    assert report.run == "run as Ultralytics exports it end to end"
    assert units(report) == UNITS["chosen"]


@pytest.mark.parametrize("options", [{"dynamic": True}, {"simplify": True}, {"quantize": 16}], ids=str)
def test_other_exports(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from graphsurgery.torch.parity import deployed as side

    monkeypatch.setattr(side, "_SIDES", (SIZE,))
    file, checkpoint = deployed("yolov8n", **options)
    report = gt.compare(file, from_checkpoint(checkpoint), providers="cpu")
    assert report.passed, str(report)
    assert units(report) == UNITS["Detect"]


def test_a_plain_export_gives_all_that_the_module_does() -> None:
    """Outside of their exporter the head also gives what it made the detections of."""
    trained = network("yolov8n")
    torch.onnx.export(trained, (torch.rand(1, 3, SIZE, SIZE),), "plain.onnx", dynamo=False)
    report = gt.compare("plain.onnx", trained, providers="cpu")
    assert report.passed, str(report)
    assert report.run == "as it is called"
    assert len(report.outputs) > 1
    assert units(report)["boxes"] == "px"
