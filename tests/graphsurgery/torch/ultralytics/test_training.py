"""Training with Ultralytics: the blocks stay, the checkpoint brings them back, and Ultralytics alone stops at them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from graphsurgery import torch as gt
from graphsurgery.errors import RequestError
from graphsurgery.torch import ultralytics as gu
from graphsurgery.weights import torch_file

from .detection import QUICK, RECIPE, SIZE, Trained

IDS = ["model.4.simam", "model.6.m.0.cv2.nam", "model.8.se"]
STOPS = "blocks of graphsurgery attached, which Ultralytics alone would drop; train it with YOLO or RTDETR of graphsurg"


def ids(model: Any) -> list[str]:
    return sorted(each.id for each in model.attachments())


def test_every_weight_is_transferred_to_the_model_that_the_trainer_builds(trained: Trained) -> None:
    (line,) = {each for each in trained.said if each.startswith("Transferred")}
    _, count, _ = line.split(maxsplit=2)
    loaded, all_of_them = count.split("/")
    assert loaded == all_of_them
    assert int(loaded) > 300


def test_blocks_are_trained_and_in_the_checkpoint(trained: Trained) -> None:
    model = gu.YOLO(str(trained.best))
    assert ids(model) == IDS
    start = gu.YOLO(str(trained.base), recipe=RECIPE)
    before = dict(start.model.state_dict())
    own = [key for key in before if key.startswith(tuple(IDS)) and before[key].is_floating_point()]
    assert {key.rpartition(".")[2] for key in own} >= {"alpha", "weight", "bias"}
    moved = [key for key in own if not torch.equal(before[key], model.model.state_dict()[key])]
    assert {f"{id}.alpha" for id in IDS} <= set(moved)


def test_the_checkpoint_predicts_and_validates_with_ultralytics_alone(trained: Trained, data: Path, here: Path) -> None:
    import ultralytics

    image = torch.rand(1, 3, SIZE, SIZE)
    stock, own = ultralytics.YOLO(str(trained.best)), gu.YOLO(str(trained.best))
    torch.testing.assert_close(stock.model(image)[0], own.model(image)[0], rtol=0, atol=0)
    assert stock.predict(image, verbose=False)[0].orig_shape == (SIZE, SIZE)
    metrics = stock.val(data=str(data), imgsz=SIZE, plots=False, verbose=False)
    assert metrics.box.map50 == own.val(data=str(data), imgsz=SIZE, plots=False, verbose=False).box.map50


def test_ultralytics_alone_does_not_train_it(trained: Trained, data: Path, here: Path) -> None:
    import ultralytics

    with pytest.raises(KeyError, match=STOPS):
        ultralytics.YOLO(str(trained.best)).train(data=str(data), epochs=1, **QUICK)
    with pytest.raises(KeyError, match=STOPS):
        ultralytics.YOLO(str(trained.interrupted)).train(resume=True)


def test_a_saved_model_is_guarded_too_and_a_detached_one_is_not(base: Path, here: Path, data: Path) -> None:
    import ultralytics

    model = gu.YOLO(str(base), recipe=RECIPE)
    model.save("attached.pt")
    with pytest.raises(KeyError, match=STOPS):
        ultralytics.YOLO("attached.pt").train(data=str(data), epochs=1, **QUICK)
    model.detach()
    assert model.model.yaml == ultralytics.YOLO(str(base)).model.yaml


def test_resuming_needs_no_recipe(trained: Trained, here: Path) -> None:
    model = gu.YOLO(str(trained.interrupted))
    model.train(resume=True)
    assert model.trainer.start_epoch == 1
    assert ids(model) == IDS
    assert ids(gu.YOLO(model.trainer.best)) == IDS


def test_freezing_the_rest_changes_nothing_else(trained: Trained, data: Path, here: Path) -> None:
    model = gu.YOLO(str(trained.best))
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    model.train(data=str(data), epochs=2, freeze="rest", optimizer="SGD", lr0=0.1, project=str(here), **QUICK)
    after = model.model.state_dict()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed
    assert [key for key in changed if not key.startswith(tuple(IDS))] == []
    frozen = model.trainer.model.train()
    norms = {
        name: module.training for name, module in frozen.named_modules() if isinstance(module, torch.nn.BatchNorm2d)
    }
    assert {name for name, training in norms.items() if training} == {"model.6.m.0.cv2.nam.block.Channel_Att.bn2"}
    assert len(norms) > 50
    trainable = {name for name, each in frozen.named_parameters() if each.requires_grad}
    assert trainable == {name for name, _ in gt.block_parameters(frozen)}


def test_a_frozen_rest_is_that_of_the_base_in_the_moving_average_too(trained: Trained) -> None:
    """v * d + v * (1 - d) is not v: without a correction the average drifts away by rounding."""
    from ultralytics.utils.torch_utils import ModelEMA

    from graphsurgery.torch.ultralytics.trainer import BlockTrainer

    class Stock:
        def optimizer_step(self) -> None:
            self.ema.update(self.model)  # type: ignore[attr-defined]

    class Trainer(BlockTrainer, Stock):
        pass

    trainer: Any = Trainer()
    trainer.model = gu.YOLO(str(trained.best)).model
    trainer.args = type("Args", (), {"freeze": "rest"})
    trainer.ema = ModelEMA(trainer.model)
    trainer.ema.updates = 500
    for _ in range(20):
        trainer.optimizer_step()
    rest = {key: value for key, value in trainer.model.state_dict().items() if not key.startswith(tuple(IDS))}
    assert all(torch.equal(value, trainer.ema.ema.state_dict()[key]) for key, value in rest.items())


def test_checkpoints_are_of_float16_and_computed_in_float32(trained: Trained) -> None:
    raw = torch.load(trained.best, weights_only=False)["model"]
    assert {each.dtype for each in raw.parameters()} == {torch.float16}
    model = gu.YOLO(str(trained.best)).model
    assert {each.dtype for each in model.parameters()} == {torch.float32}


def test_batchnorms_of_blocks_keep_their_own_epsilon(trained: Trained) -> None:
    model = gu.YOLO(str(trained.best)).model
    own, other = model.get_submodule("model.6.m.0.cv2.nam.block.Channel_Att.bn2"), model.get_submodule("model.0.bn")
    assert (own.eps, own.momentum) == (1e-5, 0.1)
    assert (other.eps, other.momentum) == (1e-3, 0.03)


def test_restricted_loading_takes_the_blocks(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.nn import tasks

    monkeypatch.setattr(tasks, "SAFE_LOAD", True)
    monkeypatch.setattr(torch.serialization, "_marked_safe_globals_set", set(), raising=False)
    torch.serialization.clear_safe_globals()
    with pytest.raises(TypeError, match="outside the supported Ultralytics checkpoint format"):
        tasks.torch_safe_load(str(trained.best))
    assert ids(gu.YOLO(str(trained.best))) == IDS


def test_the_only_package_that_a_checkpoint_asks_for_is_graphsurgery(trained: Trained) -> None:
    """Ultralytics installs whatever has the name of a module that is missing."""
    known = {
        "torch",
        "ultralytics",
        "collections",
        "__builtin__",
        "builtins",
        "numpy",
        "pathlib",
        "_codecs",
        "copy_reg",
    }
    asked = {name.partition(".")[0] for name in torch_file.named(trained.best)}
    assert asked - known == {"graphsurgery"}


def test_an_interrupted_checkpoint_without_blocks_cannot_be_resumed_with_some(
    trained: Trained, data: Path, here: Path
) -> None:
    """Its optimizer has no state for them."""
    checkpoint = torch.load(trained.interrupted, weights_only=False)
    gt.detach(checkpoint["ema"])
    torch.save(checkpoint, "plain.pt")
    with pytest.raises(RequestError, match=r"plain.pt has no blocks attached, so that training cannot be resumed"):
        gu.YOLO("plain.pt", recipe=RECIPE).train(resume=True)


WITHOUT = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "graphsurgery":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from ultralytics import YOLO
from ultralytics.nn import tasks

def asked(requirements, *_, **__):
    print("installs", requirements)
    raise SystemExit(0)

tasks.check_requirements = asked
YOLO(sys.argv[1])
"""


@pytest.mark.long
def test_a_machine_without_graphsurgery_is_led_to_that_package(trained: Trained) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(trained.best)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "installs graphsurgery"
