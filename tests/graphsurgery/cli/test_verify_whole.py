"""`graphsurgery verify --torch` and `--ultralytics`: the whole model with the whole module."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphsurgery as gsx

DETECTOR = """
import torch
from torch import nn
from graphsurgery import torch as gt

def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 6, 1)).eval()

def trained():
    print("loading")
    made = plain()
    recipe = [{"module": "se", "after": "1", "settings": {"reduction": 2}, "gate": "none"}]
    gt.attach(made, recipe, torch.zeros(1, 3, 16, 16))
    return made

def damaged():
    made = trained()
    with torch.no_grad():
        made[0].weight[2] *= 2
    return made
"""


@cache
def exported() -> bytes:
    names: dict[str, Any] = {}
    exec(DETECTOR, names)
    written: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            names["plain"](), (torch.zeros(1, 3, 16, 16),), written, dynamo=False, opset_version=17, input_names=["x"]
        )
    return bytes(written.getvalue())


@pytest.fixture(autouse=True)
def files(folder: Path) -> Iterator[None]:
    """plain.onnx, out.onnx with a block, and the functions that give their modules."""
    (folder / "plain.onnx").write_bytes(exported())
    gsx.insert(exported(), "se", after="/1", settings={"reduction": 2}).save(folder / "out.onnx")
    (folder / "mymodels.py").write_text(DETECTOR)
    yield
    sys.modules.pop("mymodels", None)
    sys.path[:] = [each for each in sys.path if each != str(folder)]


def test_passed(cli: Any) -> None:
    ended = cli("verify", "out.onnx", "--torch", "mymodels:trained", "--providers", "cpu", "--seeds", "1")
    lines = ended.text.splitlines()
    assert ended.code == 0
    assert lines[0] == "out.onnx against mymodels:trained, as it is called, on a random image"
    assert "  attached to the module: 1.se" in lines
    assert lines[-1].startswith("passed (torch ")
    assert ended.err == "loading\n"


def test_json(cli: Any, folder: Path) -> None:
    images = folder / "images"
    images.mkdir()
    np.save(images / "a.npy", np.random.default_rng(0).random((3, 16, 16), np.float32))
    ended = cli("verify", "out.onnx", "--torch", "mymodels:trained", "--images", "images", "--json")
    data = json.loads(ended.out)
    assert (data["model"], data["against"], data["passed"]) == ("out.onnx", "mymodels:trained", True)
    assert (data["images"], data["inserted"], data["attached"]) == (["a.npy"], ["1.se"], ["1.se"])
    row = next(each for each in data["quantities"] if each["provider"] == "cpu")
    assert 0 <= row["floor"] < row["permitted"]


def test_failed(cli: Any) -> None:
    ended = cli("verify", "out.onnx", "--torch", "mymodels:damaged")
    assert ended.text.splitlines()[-1].startswith("FAILED")
    lines = [line for line in ended.err.splitlines() if line.startswith("graphsurgery: error: ")]
    assert ended.code == 1
    (said,) = lines
    assert said.endswith("the first module that differs is 0 (Conv2d)")
    assert "out.onnx does not agree with mymodels:damaged" in said


def test_a_file_without_insertions(cli: Any) -> None:
    ended = cli("verify", "plain.onnx", "--torch", "mymodels:plain")
    assert ended.code == 0
    assert "neither the file nor the module has blocks" in ended.text


def test_through_a_pipe(command: Any, folder: Path) -> None:
    ended = command("verify", "--torch", "mymodels:trained", stdin=(folder / "out.onnx").read_bytes())
    assert ended.code == 0


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--torch", "mymodels:trained", "--ultralytics", "b.pt"], 2, "give --ultralytics or --torch, not both"),
        (["--torch", "mymodels:trained", "--original", "plain.onnx"], 2, "--original is for comparing blocks; here"),
        (["--torch", "mymodels:trained", "--ignore-rest"], 2, "--ignore-rest is for comparing blocks; here"),
        (["--torch", "mymodels:trained", "--memory", "3"], 2, "--memory is for comparing blocks; here the whole"),
        (["--torch", "mymodels:none"], 2, "the module mymodels has no none"),
        (["--torch", "mymodels"], 2, "'mymodels' names no function; write it as in mypkg.models:detector"),
        (["--torch", "mymodels:trained", "--images", "none"], 2, "the image folder none does not exist"),
        (["--torch", "mymodels:trained", "--providers", "tpu"], 2, "there is no provider called 'tpu'"),
        (["--ultralytics", "none.pt"], 2, "there is no checkpoint none.pt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_requests(cli: Any, options: list[str], code: int, sentence: str) -> None:
    ended = cli("verify", "out.onnx", *options)
    assert ended.out == b""
    assert ended.error(code).startswith(sentence)


@pytest.mark.parametrize("package", ["torch", "ultralytics"])
def test_without_a_package(cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    (folder / "best.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    ended = cli("verify", "out.onnx", "--ultralytics", "best.pt")
    assert "is not installed" in ended.error(3) or "cannot be loaded" in ended.error(3)
