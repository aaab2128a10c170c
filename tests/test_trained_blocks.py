"""Trained and deployed: a checkpoint with any block of the catalogue and the file that is made of it compute the same.

The blocks are trained for a few steps in a narrow YOLOv8, the model is pickled in float16 as trainers do, and computed
in float32. One run takes a few blocks; `make test-all` takes every variant of every block.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import graphsurgery as gsx
from graphsurgery import torch as gt
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.weights import onnx_file
from graphsurgery.weights.rest import FLOAT16, Rest
from tests.exports import NAMES, RAW, VARIANTS, export
from tests.exports.make import build
from tests.graphsurgery.torch.conftest import quick  # noqa: F401 - it acts on every test
from tests.graphsurgery.torch.nets import entry, open_gates
from tests.graphsurgery.torch.test_detectors import yolo
from tests.test_every_site import catalogue

SIZE, GATED, BARE = 128, "model.6", "model.8"
PIXELS, SCORES = 5e-3, 1e-5
"""how far the file may be from the model: in a number of a box, and in a score"""
SETTINGS: dict[str, dict[str, object]] = {"shuffle": {"groups": 16}, "scsa": {"window_size": 4}}
"""for blocks that are made for more channels, or larger maps, than this narrow model has"""
FEW = ("coordatt[official]",)


def images() -> Tensor:
    return torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    model = yolo("yolov8n")
    with torch.no_grad():
        for branch in (*model.model[-1].cv2, *model.model[-1].cv3):  # type: ignore[index,union-attr]
            branch[-1].weight.mul_(0.2)  # boxes of 700 pixels, as random weights give them, are 6e-3 off by themselves
    for module in model.modules():
        if hasattr(module, "forward_split"):
            module.forward = module.forward_split  # type: ignore[method-assign]  # as Ultralytics does for an export
    return model


@pytest.fixture(scope="module")
def base(detector: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export."""
    path = tmp_path_factory.mktemp("base") / "base.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = images()[:1]
        stored = copy.deepcopy(detector).half().float()
        torch.onnx.export(stored, (example,), path, dynamo=False, opset_version=17, input_names=["x"])
    return path


def trained(model: nn.Module, block: str) -> nn.Module:
    """The model with blocks that have had some steps of training, and nothing else."""
    model = copy.deepcopy(model)
    torch.manual_seed(0)
    settings = SETTINGS.get(block, {})
    recipe = [entry(block, GATED, settings=settings), entry(block, BARE, gate="none", settings=settings)]
    gt.attach(model, recipe, images()[:1])
    gt.freeze_rest(model)
    open_gates(model, 0.5)
    model.train()
    parameters = [parameter for _, parameter in gt.block_parameters(model)]
    optimizer = torch.optim.SGD(parameters, lr=1e-2)
    for _ in range(3):
        x = images()
        for layer in model.model[: int(BARE.rpartition(".")[2]) + 1]:  # type: ignore[index,union-attr]
            x = layer(x)
        optimizer.zero_grad()
        (x**2).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return model.eval()


def computed(model: Any, image: Tensor) -> Tensor:
    """Boxes and scores [1, 4 + classes, boxes]."""
    with torch.no_grad():
        y = model(image)
    while not isinstance(y, Tensor):
        y = y[0]
    return y


@pytest.mark.parametrize(
    "block", [pytest.param(each, marks=() if each in FEW else pytest.mark.long) for each in catalogue()]
)
def test_the_file_computes_what_the_trained_model_does(
    detector: nn.Module, base: Path, block: str, tmp_path: Path, record_property: Any
) -> None:
    model = trained(detector, block)
    torch.save({"model": None, "ema": copy.deepcopy(model).half()}, tmp_path / "best.pt")
    gsx.TrainedBlocks.load(tmp_path / "best.pt").save(tmp_path / "blocks.safetensors")
    file = gsx.apply(tmp_path / "blocks.safetensors", base)
    run = onnxruntime.InferenceSession(file.proto().SerializeToString()).run
    stored, changed, worst = model.half().float(), 0.0, np.zeros(2)
    for image in images().split(1):
        ours, (theirs,) = computed(stored, image).numpy(), run(None, {"x": image.numpy()})
        apart = np.abs(ours - theirs)
        worst = np.maximum(worst, [apart[:, :4].max(), apart[:, 4:].max()])
        changed = max(changed, np.abs(ours - computed(detector, image).numpy()).max())
    record_property("worst", worst.tolist())
    assert changed > 10 * PIXELS  # the blocks do something
    assert worst[0] < PIXELS
    assert worst[1] < SCORES


# ---------------------------------------------------------------------- exports of all kinds

OTHERS = ("onnxsim", "ort-extended", "dynamo-optimised")


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request: pytest.FixtureRequest) -> tuple[str, Rest]:
    """A model of Ultralytics, and what its checkpoint in float16 knows of it."""
    model = build(request.param)
    epsilons = {path: each.eps for path, each in model.named_modules() if isinstance(each, nn.BatchNorm2d)}
    state = {key: value.numpy() for key, value in model.half().state_dict().items()}
    return request.param, Rest.of(state, epsilons)


@pytest.mark.long
@pytest.mark.parametrize("variant", [*VARIANTS, *RAW, *OTHERS])
def test_every_export_of_the_trained_model_is_known(checkpoint: tuple[str, Rest], variant: str) -> None:
    name, rest = checkpoint
    file = onnx_file.of_model(ModelFile.load(export(name, variant)), name)
    found = rest.compare(file.arrays, file.epsilons, unbiased=file.unbiased, spare=file.spare)
    assert found.differing == []
    assert found.worst < 1.3 * FLOAT16
    assert found.share > (0.55 if name == "rtdetr-l" else 0.9)  # RepC3 is merged, and linear layers lose their names
