"""`graphsurgery bench`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import graphsurgery as gsx


@pytest.fixture
def changed(folder: Path) -> Path:
    """The detector with one SimAM, as changed.onnx."""
    return gsx.insert(folder / "detector.onnx", "simam", after="/model.8").save(folder / "changed.onnx")


FEW = ("--rounds", "2", "--warm-up", "0")


def test_text(cli: Any, changed: Path) -> None:
    ended = cli("bench", "changed.onnx", *FEW)
    assert (ended.code, ended.err) == (0, "")
    first, times, difference, *_ = ended.text.splitlines()
    assert first == (
        "changed.onnx against itself without its insertions (1 taken out again); images [1, 3, 320, 320] float32"
    )
    assert times.startswith("cpu: before ")
    assert difference.startswith("  difference ")
    assert "cores" in ended.text.splitlines()[-1]
    taken = "34,963,200 MACs; largest activation [1, 8, 160, 160], 0.82 MB"
    assert [line for line in ended.text.splitlines() if line.startswith("work ")] == [
        f"work before: {taken}",
        f"work after: {taken}",
    ]


def test_json_with_a_baseline(cli: Any, changed: Path) -> None:
    ended = cli("bench", "changed.onnx", "--baseline", "detector.onnx", "--providers", "cpu", "--json", *FEW)
    data = json.loads(ended.out)
    assert (data["model"], data["baseline"], data["removed"]) == ("changed.onnx", "detector.onnx", None)
    assert [each["provider"] for each in data["providers"]] == ["cpu"]
    assert data["providers"][0]["difference"]["verdict"] in ("slower", "faster", "below noise")
    assert data["machine"]["versions"]["onnxruntime"]
    assert data["work"]["before"] == data["work"]["after"]
    assert data["work"]["after"]["macs"] == 34_963_200
    assert data["work"]["after"]["largest_activation"] == {"shape": [1, 8, 160, 160], "bytes": 4 * 8 * 160 * 160}


def test_through_a_pipe(command: Any, changed: Path) -> None:
    ended = command("bench", *FEW, stdin=changed.read_bytes())
    assert (ended.code, ended.err) == (0, "")
    assert "1 taken out again" in ended.text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("detector.onnx",), 2, "name a --baseline"),
        (("changed.onnx", "--baseline", "gone.onnx"), 2, "there is no file gone.onnx"),
        (("changed.onnx", "--providers", "coreml"), 3, "no coreml provider"),
        (("changed.onnx", "--providers", "gpu"), 2, "no provider called 'gpu'"),
        (("changed.onnx", "--shape", "images=1x3x64x64"), 2, "does not fit the input images"),
        (("changed.onnx", "--shape", "images"), 2, "takes NAME=1x3x640x640"),
        (("changed.onnx", "--shape", "images=1x3xax4"), 2, "takes NAME=1x3x640x640"),
        (("changed.onnx", "--shape", "images=0x3x4x4"), 2, "takes NAME=1x3x640x640"),
        (("changed.onnx", "--batch", "4"), 2, "cannot be made 4"),
        (("changed.onnx", "--rounds", "1"), 2, "--rounds"),
    ],
)
def test_refused(cli: Any, changed: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert said in cli("bench", *arguments).sentence(code)


def test_without_onnxruntime(cli: Any, changed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "graphsurgery[cpu]" in cli("bench", "changed.onnx").sentence(3)
