"""Narrow networks of Ultralytics, data to train them on for a moment, and training them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import nn

from graphsurgery import torch as gt
from tests.exports.make import declare_torchvision_operators, randomise_norms

SIZE = 64
SE = {"module": "se", "after": "model.8", "settings": {"reduction": 4}}
NAM = {"module": "nam", "after": "model.6.m.0.cv2"}
SIMAM = {"module": "simam", "after": "model.4"}
RECIPE = [SE, NAM, SIMAM]
QUICK = {
    "imgsz": SIZE,
    "batch": 2,
    "nbs": 2,
    "plots": False,
    "amp": False,
    "exist_ok": True,
    "verbose": False,
    "workers": 0,
}


class Trained(NamedTuple):
    """What a training left."""

    base: Path
    best: Path
    interrupted: Path
    """last.pt after the first epoch"""
    said: list[str]
    """what Ultralytics logged"""


def usable_torchvision() -> None:
    """Let Ultralytics suppress boxes on a machine where torchvision's compiled operators do not load."""
    declare_torchvision_operators()
    if not hasattr(torch.ops.torchvision, "qnms"):
        torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except NotImplementedError:
        import torchvision.extension
        from ultralytics.utils.nms import TorchNMS

        torch.library.impl("torchvision::nms", "CPU")(TorchNMS.nms)
        torchvision.extension._has_ops = lambda: True


def data_set(folder: Path, images: int = 4) -> Path:
    """Dark and bright squares on grey."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        pictures, labels = folder / "images" / split, folder / "labels" / split
        pictures.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(images):
            side, kind = int(rng.integers(20, 40)), index % 2
            x, y = (int(each) for each in rng.integers(0, SIZE - side, 2))
            picture = np.full((SIZE, SIZE, 3), 120, np.uint8)
            picture[y : y + side, x : x + side] = (30, 220)[kind]
            Image.fromarray(picture).save(pictures / f"{index}.png")
            box = [(x + side / 2) / SIZE, (y + side / 2) / SIZE, side / SIZE, side / SIZE]
            (labels / f"{index}.txt").write_text(f"{kind} {' '.join(map(str, box))}\n")
    file = folder / "data.yaml"
    file.write_text(
        yaml.safe_dump({"path": str(folder), "train": "images/train", "val": "images/val", "names": ["a", "b"]})
    )
    return file


def architecture(name: str, folder: Path, classes: int = 2) -> Path:
    """The YAML of a network narrower than the smallest of Ultralytics."""
    from ultralytics.nn import tasks

    rows = tasks.yaml_model_load(f"{name}.yaml")
    rows.pop("yaml_file")
    rows["nc"] = classes
    if "rtdetr" in name:
        rows["head"][-1][3][:] = ["nc", 64, 30, 4, 4, 2]
    else:
        rows["scales"] = {"n": [rows["scales"]["n"][0], 0.125, rows["scales"]["n"][2]]}
    path = folder / f"narrow-{name}.yaml"
    path.write_text(yaml.safe_dump(rows))
    return path


def base_checkpoint(name: str, folder: Path) -> Path:
    """A checkpoint of a network with random weights, of values that float16 has, and scores of ordinary size."""
    import ultralytics

    usable_torchvision()
    torch.manual_seed(0)
    stock = (ultralytics.RTDETR if "rtdetr" in name else ultralytics.YOLO)(str(architecture(name, folder)))
    randomise_norms(stock.model)
    for convolution in getattr(stock.model.model[-1], "cv3", ()):
        nn.init.constant_(convolution[-1].bias, -1.0)
    stock.model.half().float()
    stock.ckpt = {"model": stock.model, "train_args": {}}
    stock.save(str(folder / f"{name}.pt"))
    return folder / f"{name}.pt"


class Interrupted(Exception):
    """What stops a training from outside."""


def train(base: Path, data: Path, runs: Path, recipe: Sequence[Mapping[str, Any]] = RECIPE, **keywords: Any) -> Trained:
    """Train for two epochs: once to the end, once interrupted after the first."""
    import ultralytics.utils

    from graphsurgery.torch import ultralytics as gu

    kind = gu.RTDETR if "rtdetr" in base.name else gu.YOLO
    said: list[str] = []

    class Listening(ultralytics.utils.logging.Handler):
        def emit(self, record: Any) -> None:
            said.append(record.getMessage())

    logger, handler = ultralytics.utils.LOGGER, Listening()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        model = kind(str(base), recipe=recipe)

        def keep(trainer: Any) -> None:
            if trainer.epoch == 0:
                shutil.copy(trainer.last, runs / "interrupted.pt")

        model.add_callback("on_model_save", keep)
        model.train(data=str(data), epochs=2, project=str(runs), name="run", **{**QUICK, **keywords})
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return Trained(base, runs / "run/weights/best.pt", runs / "interrupted.pt", said)


def open_gates(model: nn.Module) -> None:
    """Let the blocks behind residual gates do something."""
    with torch.no_grad():
        for name, parameter in gt.block_parameters(model):
            if name.endswith(".alpha"):
                parameter.fill_(0.5)
