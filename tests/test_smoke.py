"""What everybody does, in any supported environment: without torch, with the lowest or the newest versions."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsurgery
from graphsurgery.cli.main import main
from tests import models

DETECTOR = Path(__file__).parents[1] / "examples" / "01_first_insertion" / "detector.onnx"
IN_CI = ("simam", "cbam", "mhsa")
BLOCKS = [
    pytest.param(name, marks=[] if name in IN_CI else pytest.mark.long)
    for name in sorted(card.name for card in graphsurgery.blocks())
]
pytestmark = pytest.mark.smoke
without_torch = pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's detector in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(DETECTOR, "detector.onnx"))


def outputs(model: bytes, shape: tuple[int, ...] = (1, 3, 320, 320)) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random(shape, np.float32)
    found: list[Any] = session.run(None, {session.get_inputs()[0].name: image})
    return found


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_goes_in_runs_and_comes_out(name: str) -> None:
    shape = (1, 128, 8, 8)
    before = models.chain("Relu", shape=shape).SerializeToString()
    model = graphsurgery.insert(before, name, after="op:Relu")
    models.valid(model.to_bytes())
    (found,) = outputs(model.to_bytes(), shape)
    assert found.shape == shape
    assert np.isfinite(found).all()
    assert graphsurgery.remove(model).to_bytes() == before


def test_the_identity_changes_no_output() -> None:
    model = graphsurgery.insert(DETECTOR, "se", after="/model.8", init="identity")
    for found, before in zip(outputs(model.to_bytes()), outputs(DETECTOR.read_bytes()), strict=True):
        assert np.allclose(found, before, rtol=1e-4, atol=1e-4)


def test_commands(detector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--module", "se", "--after", "role:p4", "-o", "out.onnx"]
    for words in (
        ["insert", "detector.onnx", *place, *([] if find_spec("torch") else ["--no-verify"])],
        ["info", "out.onnx"],
        ["sites", "out.onnx"],
        ["diff", "detector.onnx", "out.onnx"],
        ["tensorrt", "check", "out.onnx", "--version", "10"],
        ["blocks", "cbam"],
        ["insert", "out.onnx", "--module", "nam", "--after", "SPPF", "--in-place", "--no-verify"],
        ["remove", "out.onnx", "--all", "-o", "again.onnx"],
    ):
        assert main(words) == 0, capsys.readouterr().err
    assert Path("again.onnx").read_bytes() == detector.read_bytes()


def test_errors(detector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["insert", "detector.onnx", "--module", "se", "--after", "/model.99", "-o", "out.onnx", "--json"]
    assert main(words) == 2
    assert json.loads(capsys.readouterr().out)["error"]["option"] == "--after"
    assert main(["insert", "detector.onnx", "--modul", "se"]) == 2
    assert "--module" in capsys.readouterr().err
    assert main(["nothing"]) == 2
    assert main(["--help"]) == 0


@without_torch
def test_verify_says_what_it_lacks(detector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["insert", "detector.onnx", "--module", "simam", "--after", "/model.8", "-o", "out.onnx"]) == 0
    assert main(["verify", "out.onnx"]) == 3
    assert 'pip install "graphsurgery[torch]"' in capsys.readouterr().err


def test_bench(detector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphsurgery.insert(detector, "simam", after="/model.8").save("out.onnx")
    report = graphsurgery.bench("out.onnx", rounds=2, warm_up=1)
    assert report.lines()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".onnx"])
def test_weights(detector: Path, suffix: str) -> None:
    block = graphsurgery.insert(detector, "se", after="/model.8", seed=5, settings={"reduction": 8})
    record = block.insertions()[0]
    arrays = {f"neck.{key}": value.astype(np.float32) for key, value in record.weights(block).items()}
    path = Path(f"w{suffix}")
    if suffix == ".npz":
        np.savez(path, **arrays)
    elif suffix == ".safetensors":
        pytest.importorskip("safetensors")
        from safetensors.numpy import save_file

        save_file(arrays, path)
    else:
        block.save(path)
    spec = f"{path}:{record.id}" if suffix == ".onnx" else f"{path}:neck"
    again = graphsurgery.insert(detector, "se", after="/model.8", weights=spec, settings={"reduction": 8})
    for found, before in zip(outputs(again.to_bytes()), outputs(block.to_bytes()), strict=True):
        assert np.array_equal(found, before)


def test_calibration(detector: Path) -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    Path("images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(f"images/{number}.png")
    model = graphsurgery.insert(detector, "se", after="/model.8", init="calibrated", images="images")
    models.valid(model.to_bytes())


def test_recipe(detector: Path) -> None:
    Path("recipe.yaml").write_text("insertions:\n  - {module: simam, after: /model.8}\n", encoding="utf-8")
    model = graphsurgery.apply("recipe.yaml", detector)
    assert [each.module for each in model.insertions()] == ["simam"]
    Path("wrong.yaml").write_text("insertions:\n  - {module: simam, afterr: /model.8}\n", encoding="utf-8")
    with pytest.raises(graphsurgery.GraphSurgeryError, match="afterr"):
        graphsurgery.apply("wrong.yaml", detector)


def test_half_precision_and_custom_opsets() -> None:
    for opset in (13, 17, 21):
        made = models.detector(opset=opset, dtype=np.float16)
        out = graphsurgery.insert(made, "cbam", after="/model.2")
        models.valid(out.to_bytes())
