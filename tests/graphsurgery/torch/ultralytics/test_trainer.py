"""The model that a trainer builds, for every task, and the groups of its optimizer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from graphsurgery import torch as gt
from graphsurgery.errors import RequestError, SiteError
from graphsurgery.torch import ultralytics as gu
from graphsurgery.torch.ultralytics.blocks import blocks_of
from graphsurgery.torch.ultralytics.trainer import trainer_class

from .detection import RECIPE, SE, SIZE, architecture, open_gates, usable_torchvision

DATA = {"nc": 2, "channels": 3, "names": {0: "a", 1: "b"}, "kpt_shape": [17, 3]}
PLAIN = {"module": "se", "after": "model.4", "settings": {"reduction": 4}, "gate": "none"}


def model(name: str, folder: Path, recipe: list[Mapping[str, Any]], classes: int = 2) -> Any:
    usable_torchvision()
    torch.manual_seed(0)
    kind = gu.RTDETR if "rtdetr" in name else gu.YOLO
    return kind(str(architecture(name, folder, classes)), recipe=recipe)


def trainer(yolo: Any, classes: int = 2) -> Any:
    """A trainer that has done nothing yet, not even looked at its data."""
    kind = trainer_class(yolo._smart_load("trainer"), blocks_of(yolo.model, "the model"))
    made: Any = object.__new__(kind)
    made.data = {**DATA, "nc": classes, "names": {index: f"c{index}" for index in range(classes)}}
    made.args = SimpleNamespace(
        imgsz=SIZE, pretrained=True, dropout=0.0, cls_remap=True, freeze=None, warmup_bias_lr=0.1, optimizer="", lr0=0.0
    )
    made.resume = False
    return made


@pytest.mark.parametrize(
    "name",
    [
        *("yolov8n-seg", "yolov8n-cls", "yolo26n"),
        *(pytest.param(each, marks=pytest.mark.long) for each in ("yolov8n-pose", "yolov8n-obb", "rtdetr-l")),
    ],
)
def test_every_task_keeps_blocks_and_weights(name: str, tmp_path: Path) -> None:
    yolo = model(name, tmp_path, [PLAIN, {"module": "simam", "after": "model.6"}])
    open_gates(yolo.model)
    built = trainer(yolo).get_model(cfg=yolo.model.yaml, weights=yolo.model, verbose=False)
    assert [each.id for each in gt.attachments(built)] == ["model.4.se", "model.6.simam"]
    mine, theirs = yolo.model.state_dict(), built.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    image = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        found, expected = built.eval()(image), yolo.model.eval()(image)
    assert torch.equal(_first(found), _first(expected))
    assert "graphsurgery" in built.yaml["backbone"][0][2]


def _first(output: Any) -> torch.Tensor:
    while not isinstance(output, torch.Tensor):
        output = output[0]
    return output


def test_a_model_from_yaml_starts_with_the_blocks_as_they_were_attached(tmp_path: Path) -> None:
    yolo = model("yolov8n", tmp_path, RECIPE)
    open_gates(yolo.model)
    built = trainer(yolo).get_model(cfg=yolo.cfg, weights=None, verbose=False)
    state = built.state_dict()
    own = dict(gt.block_parameters(yolo.model))
    assert own
    assert all(torch.equal(value, state[name]) for name, value in own.items())


def test_a_head_with_other_classes_is_checked(tmp_path: Path) -> None:
    yolo = model("yolov8n", tmp_path, [{"module": "se", "after": "model.22.cv3.0.1"}], classes=100)
    other = trainer(yolo)
    built = other.get_model(cfg=yolo.model.yaml, weights=yolo.model, verbose=False)  # Ultralytics keeps the old width
    assert built.model[-1].nc == 2
    with pytest.raises(SiteError, match=r"model.22.cv3.0.1 has 32 channels .* model.22.cv3.0.1.se is made for 100"):
        other.get_model(cfg=yolo.model.yaml, weights=None, verbose=False)


def test_a_block_of_one_size_is_trained_at_that_size(tmp_path: Path) -> None:
    usable_torchvision()
    yolo = gu.YOLO(str(architecture("yolov8n", tmp_path)))
    yolo.attach([{"module": "ge[theta-plus]", "after": "model.4"}], imgsz=SIZE)
    trainer(yolo).get_model(cfg=yolo.model.yaml, weights=yolo.model, verbose=False)
    yolo.detach()
    yolo.attach([{"module": "ge[theta-plus]", "after": "model.4"}], imgsz=2 * SIZE)
    with pytest.raises(SiteError, match=r"works at one size, 16x16, and at 64 pixels its map has 8x8; attach it for"):
        trainer(yolo).get_model(cfg=yolo.model.yaml, weights=yolo.model, verbose=False)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "MuSGD"])
def test_gates_do_not_decay_and_small_matrices_are_not_orthogonalised(name: str, tmp_path: Path) -> None:
    yolo = model("yolov8n", tmp_path, [SE, {"module": "eca", "after": "model.22.cv3.0.0"}])
    made = trainer(yolo)
    made.model = yolo.model
    optimizer = made.build_optimizer(yolo.model, name=name, lr=0.01, momentum=0.9, decay=5e-4)
    held = [id(each) for group in optimizer.param_groups for each in group["params"]]
    assert sorted(held) == sorted(id(each) for each in yolo.model.parameters())
    group_of = {id(each): group for group in optimizer.param_groups for each in group["params"]}
    for key, parameter in gt.block_parameters(yolo.model):
        group = group_of[id(parameter)]
        assert not group.get("use_muon"), key
        assert group["weight_decay"] == (0.0 if key.endswith(("alpha", "bias")) else 5e-4), key
    others = [group_of[id(each)] for key, each in yolo.model.named_parameters() if key == "model.0.conv.weight"]
    assert others[0]["weight_decay"] == 5e-4
    assert bool(others[0].get("use_muon")) == (name == "MuSGD")


def test_freeze_is_a_word_that_is_known(tmp_path: Path) -> None:
    yolo = model("yolov8n", tmp_path, [SE])
    with pytest.raises(
        RequestError, match=r"there is no freeze 'Rest'; freeze='rest' freezes everything but the blocks"
    ):
        yolo.train(data="coco8.yaml", freeze="Rest")
    yolo.detach()
    with pytest.raises(RequestError, match=r"trains blocks alone, and the model has none"):
        yolo.train(data="coco8.yaml", freeze="rest")


WORKER = """
import pickle, sys, torch
with open(sys.argv[1], "rb") as stream:
    state = pickle.load(stream)
kind = state["trainer"]
made = object.__new__(kind)
made.data, made.args, made.resume = state["data"], state["args"], False
built = made.get_model(cfg=state["cfg"], weights=None, verbose=False)
torch.save({key: value for key, value in built.state_dict().items() if ".se." in key}, sys.argv[2])
"""


@pytest.mark.long
def test_the_workers_of_distributed_training_get_the_blocks(tmp_path: Path) -> None:
    """Ultralytics sends them the class of the trainer by value, and each builds the model."""
    cloudpickle = pytest.importorskip("cloudpickle")
    yolo = model("yolov8n", tmp_path, [SE])
    open_gates(yolo.model)
    made = trainer(yolo)
    sent = {"trainer": type(made), "data": made.data, "args": made.args, "cfg": str(yolo.cfg)}
    (tmp_path / "sent").write_bytes(cloudpickle.dumps(sent))
    subprocess.run([sys.executable, "-c", WORKER, tmp_path / "sent", tmp_path / "got"], check=True)
    got = torch.load(tmp_path / "got")
    own = {key: value for key, value in yolo.model.state_dict().items() if ".se." in key}
    assert own.keys() == got.keys()
    assert all(torch.equal(value, got[key]) for key, value in own.items())
