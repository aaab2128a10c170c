"""The example that trains: the data that it makes, and the whole way from data to file."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "02_train_a_block"
RUN = f"""
import runpy, sys
sys.path[:0] = [{str(ROOT)!r}, {str(EXAMPLE)!r}]
from tests.graphsurgery.torch.ultralytics.detection import usable_torchvision
usable_torchvision()
runpy.run_path({str(EXAMPLE)!r} + "/" + sys.argv.pop(1), run_name="__main__")
"""


def example(folder: Path, script: str, *arguments: str) -> str:
    """What a script of the example prints. It runs in a process and a folder of its own, off the network."""
    environment = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, script, *arguments, "--folder", str(folder / "digits")],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**_environment(), **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)


def test_digits_are_where_their_labels_are(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from PIL import Image

    data = runpy.run_path(str(EXAMPLE / "make_data.py"))["make"](tmp_path, tiny=True)
    assert "names: {0: d0, 1: d1" in data.read_text()
    for split, count in (("train", 128), ("val", 48), ("test", 48)):
        labels = sorted((tmp_path / "labels" / split).glob("*.txt"))
        pictures = sorted((tmp_path / "images" / split).glob("*.png"))
        assert [each.stem for each in labels] == [each.stem for each in pictures]
        assert len(labels) == count
        for path in labels:
            boxes = [[float(word) for word in line.split()] for line in path.read_text().splitlines()]
            assert 1 <= len(boxes) <= 5
            for digit, x, y, width, height in boxes:
                assert digit in range(10)
                assert x - width / 2 + 1e-5 >= 0
                assert x + width / 2 <= 1 + 1e-5
                assert y - height / 2 + 1e-5 >= 0
                assert y + height / 2 <= 1 + 1e-5
    assert Image.open(pictures[0]).size == (128, 128)


def test_layers_behind_a_block_in_the_yaml_are_renumbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    with_blocks = runpy.run_path(str(EXAMPLE / "starts.py"))["with_blocks"]
    rows = [[-1, 1, "Conv", []], [-1, 1, "C2f", []], [[-1, 0], 1, "Concat", [1]], [[0, 1, 2], 1, "Detect", []]]
    block = [-1, 1, "CBAM", [8, "official", 2]]
    assert list(with_blocks(rows, {1: 8})) == [*rows[:2], block, rows[2], [[0, 2, 3], 1, "Detect", []]]


@pytest.mark.long
def test_one_epoch_goes_the_whole_way(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    said = example(tmp_path, "train.py", "--epochs", "1", "--seeds", "1", "--tiny")
    assert re.search(r"mAP50 with CBAM: 0\.\d{3} \(n = 1\)", said)
    assert (tmp_path / "digits" / "found.png").exists()
    tables = example(tmp_path, "starts.py", "--epochs", "1", "--seeds", "1")
    assert len(re.findall(r"^\| .*\| 0\.\d{3} \|$", tables, re.MULTILINE)) == 8


@pytest.mark.long
def test_digits_are_learnt_with_and_without_a_block(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    said = example(tmp_path, "train.py")
    print(said)
    scores = [float(each) for each in re.findall(r"(?:plain|block)-\d: mAP50 (\d\.\d+)", said)]
    assert len(scores) == 6
    assert min(scores) >= 0.5


def test_an_insertion_is_a_pass_of_onnx_ir(tmp_path: Path) -> None:
    pytest.importorskip("onnx_ir")
    script = ROOT / "examples" / "04_in_a_pipeline" / "insert_pass.py"
    detector = ROOT / "examples" / "01_first_insertion" / "detector.onnx"
    done = subprocess.run(
        [sys.executable, str(script), str(detector), "out.onnx"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("inserted")] == [
        "inserted model.4.se",
        "inserted model.8.simam",
    ]
    assert "passed" in done.stdout
