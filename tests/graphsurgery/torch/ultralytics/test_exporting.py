"""Export to ONNX: the file computes what the model does, and no file is written that does not."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import graphsurgery as gsx
from graphsurgery.errors import BlockError, GraphSurgeryError, ParityFailed, RequestError
from graphsurgery.torch import compare
from graphsurgery.torch import ultralytics as gu
from graphsurgery.torch.ultralytics import exporting

from .detection import RECIPE, SIZE, open_gates

CBAM = {"module": "cbam", "before": "model.9", "gate": "none"}
ECA = {"module": "eca", "after": "model.12", "consumers": "model.17"}
ALL = [*RECIPE, CBAM, ECA]


def model(base: Path, here: Path, recipe: list[Mapping[str, Any]]) -> Any:
    """With open gates, and saved in a folder of its own, beside which it is exported."""
    made = gu.YOLO(str(base), recipe=recipe)
    open_gates(made.model)
    made.save("trained.pt")
    return gu.YOLO(str(here / "trained.pt"))


def check(path: str, yolo: Any) -> None:
    """Boxes and scores of the file are those of the model, to what the issue of rounding allows."""
    report = compare(path, yolo.model, providers="cpu", seeds=2)
    errors = {each.quantity: each.error for each in report.quantities}
    assert report.passed
    assert errors["boxes"] < 5e-3
    assert errors["scores"] < 1e-5


def test_the_file_is_the_model_with_its_blocks_and_its_metadata(base: Path, here: Path) -> None:
    yolo = model(base, here, ALL)
    before = {key: value.clone() for key, value in yolo.model.state_dict().items()}
    path = yolo.export(format="onnx", imgsz=SIZE)
    assert Path(path) == here / "trained.onnx"
    file = gsx.ModelFile.load(path)
    assert {each.id for each in file.insertions()} == {
        *("model.4.simam", "model.6.m.0.cv2.nam", "model.8.se", "model.9.cbam", "model.12.eca")
    }
    metadata = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert metadata["task"] == "detect"
    assert literal_eval(metadata["names"]) == {0: "0", 1: "1"}
    check(path, yolo)
    after = yolo.model.state_dict()
    assert len(yolo.attachments()) == 5
    assert all(before[key].equal(after[key]) for key in before)
    predicted = gu.YOLO(path, task="detect").predict(torch.zeros(1, 3, SIZE, SIZE), verbose=False)
    assert predicted[0].names == {0: "0", 1: "1"}


@pytest.mark.long
@pytest.mark.parametrize(
    "keywords",
    [{"dynamic": True}, {"batch": 2}, {"opset": 13}, {"simplify": False}, {"nms": True}, {"quantize": 16}],
    ids=str,
)
def test_what_ultralytics_can_be_asked_for(base: Path, here: Path, keywords: dict[str, Any]) -> None:
    yolo = model(base, here, ALL)
    path = yolo.export(format="onnx", imgsz=SIZE, **keywords)
    assert len(gsx.ModelFile.load(path).insertions()) == 5
    assert gsx.verify(path).passed


@pytest.mark.long
def test_the_exporters_own_graph(base: Path, here: Path) -> None:
    yolo = model(base, here, ALL)
    path = yolo.export(format="onnx", imgsz=SIZE, lowering="exporter")
    assert not gsx.ModelFile.load(path).insertions()
    check(path, yolo)


@pytest.mark.long
def test_a_file_that_is_something_else_is_not_written(base: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yolo = model(base, here, [{"module": "se", "after": "model.8", "gate": "none"}])
    (here / "trained.onnx").write_bytes(b"an older export")
    monkeypatch.setattr(exporting, "apply", lambda blocks, base, trust: gsx.ModelFile.load(base))
    with pytest.raises(ParityFailed, match=r"trained.onnx does not agree with the model"):
        yolo.export(format="onnx", imgsz=SIZE)
    assert (here / "trained.onnx").read_bytes() == b"an older export"


def test_lowerings_of_a_whole_model_are_none_but_the_exporters(base: Path, here: Path) -> None:
    with pytest.raises(
        RequestError, match=r"there is no lowering 'fast' of a whole model; give lowering='exporter' or none"
    ):
        model(base, here, RECIPE).export(format="onnx", lowering="fast")


@pytest.mark.long
@pytest.mark.parametrize("position", ["model.8", "model.2.cv1", "model.6.m.0.cv2"])
def test_every_block_of_the_catalogue(base: Path, here: Path, position: str) -> None:
    failed, refused = {}, list[str]()
    for block in gsx.blocks():
        entry = {"module": block.name, "after": position, "gate": "none"}
        try:
            yolo = model(base, here, [entry])
        except BlockError:  # it cannot work there, in no file either
            refused.append(block.name)
            continue
        try:
            check(yolo.export(format="onnx", imgsz=SIZE), yolo)
        except GraphSurgeryError as error:
            failed[block.name] = str(error)
    assert failed == {}
    assert len(refused) < 5
