"""From a recipe to a resumed training, with a fresh process for every step, as people work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import graphsurgery as gsx

from .detection import RECIPE, base_checkpoint, data_set, train

ROOT = Path(__file__).parents[4]
RTDETR = [
    {"module": "se", "after": "model.8", "settings": {"reduction": 4}},
    {"module": "cbam", "after": "model.9.ec", "gate": "none"},
]
CASES = {"yolov8n": RECIPE, "rtdetr-l": RTDETR}
START = f"""
import sys, torch
sys.path.insert(0, {str(ROOT)!r})
from tests.graphsurgery.torch.ultralytics.detection import QUICK, SIZE, usable_torchvision
usable_torchvision()
import ultralytics
from graphsurgery.torch import compare
from graphsurgery.torch import ultralytics as gu
folder, data, best, interrupted, kind = sys.argv[1:]
OWN, STOCK = getattr(gu, kind), getattr(ultralytics, kind)
QUICK["project"] = folder
"""
STEPS = {
    "stock predicts and validates": """
found = STOCK(best).predict(torch.rand(1, 3, SIZE, SIZE), verbose=False)
metrics = STOCK(best).val(data=data, imgsz=SIZE, plots=False)
assert len(found) == 1 and metrics.box.map50 == OWN(best).val(data=data, imgsz=SIZE, plots=False).box.map50
""",
    "export": """
path = OWN(best).export(format="onnx", imgsz=SIZE)
print(compare(path, OWN(best).model, providers="cpu"))
""",
    "stock exports too": """
STOCK(best).export(format="onnx", imgsz=SIZE)
""",
    "stock does not train": """
for model, keywords in ((best, dict(data=data, epochs=1, **QUICK)), (interrupted, dict(resume=True))):
    try:
        STOCK(model).train(**keywords)
    except KeyError as error:
        assert "blocks of graphsurgery attached" in str(error)
    else:
        raise AssertionError
""",
    "resume": """
model = OWN(interrupted)
model.train(resume=True)
assert model.trainer.start_epoch == 1 and len(model.attachments()) == len(OWN(best).attachments())
""",
    "freeze the rest": """
before = OWN(best)
own = tuple(each.id + "." for each in before.attachments())
model = OWN(best)
model.train(data=data, epochs=2, freeze="rest", optimizer="SGD", lr0=0.1, name="frozen", **QUICK)
old, new = before.model.state_dict(), model.model.state_dict()
changed = [key for key in old if not torch.equal(old[key], new[key])]
assert changed and all(key.startswith(own) for key in changed), changed[:3]
# the trained blocks on the old base are the trained model
before.model.load_state_dict({key: new[key] if key.startswith(own) else old[key] for key in old})
image = torch.rand(1, 3, SIZE, SIZE)
with torch.no_grad():
    assert torch.equal(before.model(image)[0], model.model(image)[0])
print(len(old) - len(changed), "old tensors the same, 0 changed")
""",
}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_life_cycle(name: str, tmp_path: Path) -> None:
    data = data_set(tmp_path / "data")
    recipe: list[Mapping[str, Any]] = CASES[name]
    trained = train(base_checkpoint(name, tmp_path), data, tmp_path, recipe)
    kind = "RTDETR" if "rtdetr" in name else "YOLO"
    files = [tmp_path, data, trained.best, trained.interrupted, kind]
    for step, code in STEPS.items():
        done = _python(START + code, files, tmp_path)
        assert done.returncode == 0, f"{step}: {done.stderr[-2000:]}"
        if step == "export":
            assert len(gsx.ModelFile.load(trained.best.with_suffix(".onnx")).insertions()) == len(recipe)
            print(done.stdout)


def _python(code: str, arguments: list[Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """In a folder of its own: Ultralytics writes into the current one."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)
