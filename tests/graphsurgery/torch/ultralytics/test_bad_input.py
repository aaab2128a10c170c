"""Recipes and checkpoints that do not fit: one sentence, and the model stays as it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from graphsurgery import torch as gt
from graphsurgery.errors import MissingDependency, RecipeError, RequestError, SelectorError, WeightsError
from graphsurgery.torch import ultralytics as gu
from graphsurgery.weights.attachment import FORMAT

from .detection import RECIPE, SE, Trained


def test_the_same_recipe_again_is_no_error(trained: Trained) -> None:
    assert len(gu.YOLO(str(trained.best), recipe=RECIPE).attachments()) == len(RECIPE)


def test_another_recipe_than_the_checkpoints(trained: Trained) -> None:
    with pytest.raises(WeightsError, match=r"best.pt has blocks of another recipe .* nothing came from .*model.2"):
        gu.YOLO(str(trained.best), recipe=[*RECIPE, {"module": "se", "after": "model.2"}])
    with pytest.raises(WeightsError, match=r"best.pt has blocks of another recipe attached, which has .*'simam'"):
        gu.YOLO(str(trained.best), recipe=RECIPE[:2])


def test_weights_of_another_recipe(base: Path, trained: Trained, data: Path) -> None:
    model = gu.YOLO(str(base), recipe=[SE])
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"best.pt is of another recipe: it has model.4.simam, which is not attached"
    ):
        model.load(str(trained.best))
    with pytest.raises(WeightsError, match=r"best.pt is of another recipe"):
        model.train(data=str(data), epochs=1, pretrained=str(trained.best), imgsz=64)
    assert all(before[key].equal(value) for key, value in model.model.state_dict().items())


def test_weights_without_blocks_are_loaded_into_the_rest(base: Path) -> None:
    model = gu.YOLO(str(base), recipe=[SE])
    weight = model.model.get_submodule("model.8.se.block.fc1").weight
    before = weight.clone()
    model.model.get_submodule("model.0.conv").weight.data.zero_()
    model.load(str(base))
    assert weight.equal(before)
    assert model.model.get_submodule("model.0.conv").weight.abs().sum() > 0


def changed(path: Path, trained: Trained, change: object) -> str:
    checkpoint = torch.load(trained.best, weights_only=False)
    change(checkpoint["model"])  # type: ignore[operator]
    torch.save(checkpoint, path)
    return str(path)


def hooks(model: torch.nn.Module) -> list[object]:
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


def test_a_newer_graphsurgery(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def newer(model: torch.nn.Module) -> None:
        for hook in hooks(model):
            hook.spec["format"] = FORMAT + 1  # type: ignore[attr-defined]

    with pytest.raises(WeightsError, match=r"newer.pt was written by a newer graphsurgery"):
        gu.YOLO(changed(tmp_path / "newer.pt", trained, newer))
    monkeypatch.delattr("graphsurgery.torch.hooks.After")
    with pytest.raises(
        WeightsError, match=r"best.pt was written by a newer graphsurgery: this one has no .*hooks.After"
    ):
        gu.YOLO(str(trained.best))


def test_a_block_of_a_package_that_is_not_here(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics would install whatever package has the name of the module."""
    source = "from torch import nn\nclass Mine(nn.Module):\n    def forward(self, x):\n        return x\n"
    (tmp_path / "mypackage.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    path = changed(tmp_path / "mine.pt", trained, lambda model: model.add_module("mine", _mine()))
    (tmp_path / "mypackage.py").unlink()
    monkeypatch.delitem(sys.modules, "mypackage")
    with pytest.raises(
        MissingDependency, match=r"mine.pt needs mypackage.Mine, and there is no package 'mypackage' here"
    ):
        gu.YOLO(path)


def _mine() -> torch.nn.Module:
    import mypackage  # type: ignore[import-not-found]

    made: torch.nn.Module = mypackage.Mine()
    return made


def test_weights_that_are_not_finite(trained: Trained, tmp_path: Path, data: Path) -> None:
    def spoil(model: torch.nn.Module) -> None:
        model.get_submodule("model.8.se").alpha.data.fill_(float("nan"))

    model = gu.YOLO(changed(tmp_path / "spoiled.pt", trained, spoil))
    with pytest.raises(WeightsError, match=r"alpha of model.8.se in .*spoiled.pt has values that are not finite"):
        model.train(data=str(data), epochs=1)


def test_recipes_that_do_not_fit_leave_the_model_alone(base: Path) -> None:
    model = gu.YOLO(str(base))
    architecture = dict(model.model.yaml)
    with pytest.raises(SelectorError, match=r"model.88"):
        model.attach([{"module": "se", "after": "model.88"}])
    with pytest.raises(RecipeError, match=r"keys that mean nothing on a live model"):
        model.attach([{"module": "se", "after": "model.8", "target": "dla"}])
    assert model.attachments() == []
    assert model.model.yaml == architecture


def test_tuning_would_lose_the_blocks(base: Path) -> None:
    with pytest.raises(RequestError, match=r"tune\(\) trains with Ultralytics' own command line"):
        gu.YOLO(str(base), recipe=[SE]).tune(iterations=1)


def test_an_exported_model_has_no_blocks_to_attach(base: Path, here: Path) -> None:
    (here / "model.onnx").write_bytes(b"")
    model = gu.YOLO("model.onnx", task="detect")
    assert model.attachments() == []
    with pytest.raises(TypeError, match=r"should be a \*.pt PyTorch model"):
        model.attach([SE])


def test_the_wrapper_of_ultralytics_alone_is_refused(base: Path) -> None:
    import ultralytics

    with pytest.raises(RequestError, match=r"YOLO is the wrapper that trains and exports"):
        gt.attach(ultralytics.YOLO(str(base)), [SE], torch.zeros(1, 3, 64, 64))
