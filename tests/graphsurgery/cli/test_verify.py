"""`graphsurgery verify`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphsurgery as gsx


@pytest.fixture
def changed(folder: Path) -> Path:
    """The detector with one SE, as changed.onnx."""
    return gsx.insert(folder / "detector.onnx", "se", after="/model.8").save(folder / "changed.onnx")


def test_passed(cli: Any, changed: Path) -> None:
    ended = cli("verify", "changed.onnx", "--original", "detector.onnx", "--providers", "cpu", "--seeds", "1")
    lines = ended.text.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert lines[0] == "model.8.se: se after /model.8, [1, 32, 10, 10] float32: passed"
    assert "byte for byte" in lines[-2]
    assert lines[-1].startswith("passed (torch ")


def test_json(cli: Any, changed: Path) -> None:
    data = json.loads(cli("verify", "changed.onnx", "--json", "--seeds", "1").out)
    assert (data["model"], data["passed"], data["unchanged"]["passed"]) == ("changed.onnx", True, True)
    rows = [row for row in data["insertions"][0]["rows"] if row["provider"] == "cpu" and not row["weights_drawn"]]
    optimised, as_written, in_the_model = rows
    assert as_written["nodes"] == {"total": 6, "on": {"cpu": 6}, "fell_back": []}
    assert as_written["kernels"] == {"cpu": 6}
    assert optimised["kernels"]["cpu"] > 0
    assert (optimised["nodes"], in_the_model["nodes"], in_the_model["kernels"]) == (None, None, {})


def test_through_a_pipe(command: Any, changed: Path) -> None:
    ended = command("verify", "--seeds", "1", stdin=changed.read_bytes())
    assert ended.code == 0
    assert "model.8.se" in ended.text


def test_failed(cli: Any, changed: Path, folder: Path) -> None:
    """A weight that another tool changed: the block no longer computes what its record says, or the rest is not it."""
    model = onnx.load(changed)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "model.0.conv.weight")
    weight.raw_data = np.ones(len(weight.raw_data) // 4, np.float32).tobytes()
    onnx.save(model, folder / "other.onnx")
    ended = cli("verify", "other.onnx", "--original", "detector.onnx", "--seeds", "1")
    assert ended.error(1) == "without the insertions it is not detector.onnx"
    assert "rest of the model: FAILED" in ended.text


def test_images(cli: Any, changed: Path, folder: Path) -> None:
    (folder / "images").mkdir()
    np.save(folder / "images" / "one.npy", np.full((3, 320, 320), 0.5, np.float32))
    ended = cli("verify", "changed.onnx", "--images", "images", "--seeds", "1", "--json")
    assert "the activation of one.npy" in json.loads(ended.out)["insertions"][0]["inputs"]
    assert "does not exist" in cli("verify", "changed.onnx", "--images", "pictures").sentence(2)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("detector.onnx",), 2, "nothing to verify"),
        (("changed.onnx", "--providers", "coreml"), 3, "coreml"),
        (("changed.onnx", "--providers", "cpu,coreml,openvino"), 3, "no coreml provider"),
        (("changed.onnx", "--providers", "gpu"), 2, "no provider called 'gpu'"),
        (("changed.onnx", "--original", "gone.onnx"), 2, "there is no file gone.onnx"),
        (("changed.onnx", "--seeds", "0"), 2, "--seeds"),
    ],
)
def test_refused(cli: Any, changed: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert said in cli("verify", *arguments).sentence(code)


def test_without_torch(cli: Any, changed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "PyTorch" in cli("verify", "changed.onnx").sentence(3)
