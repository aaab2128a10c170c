"""`insert` says before it inserts a block how large the scores of its attention will be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphsurgery.errors import BlockError
from graphsurgery.insertion import calibrating, splice


@pytest.mark.parametrize("words", [(), ("--init", "calibrated", "--images", "images")])
def test_it_is_said_before_anything_is_inserted(
    cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    def stop(*given: object) -> None:
        raise BlockError("stopped")

    monkeypatch.setattr(calibrating, "calibrate", stop)
    monkeypatch.setattr(splice, "insert", stop)
    (folder / "images").mkdir()
    ended = cli("insert", "detector.onnx", "-m", "psablock", "-a", "/model.{4,9}", *words, "-o", "out.onnx")
    first, second, error = ended.err.splitlines()
    assert first.startswith("note: model.4: psablock[yolo11] attends over 1,600 positions (40 x 40): the score matrix")
    assert second.startswith("note: model.9: psablock[yolo11] attends over 100 positions (10 x 10): the score matrix")
    assert error.endswith("stopped")


def test_it_is_said_once(cli: Any) -> None:
    arguments = ("-m", "mhsa", "-a", "/model.9", "-o", "out.onnx", "--no-verify")
    ended = cli("insert", "detector.onnx", *arguments, "--json")
    assert ended.code == 0
    assert ended.err.count("score matrix") == 1
    assert cli("insert", "detector.onnx", *arguments, "--quiet", "--force").err == ""


def test_where_the_block_cannot_work_only_the_error_is_said(cli: Any) -> None:
    ended = cli("insert", "detector.onnx", "-m", "mhsa", "--set", "heads=7", "-a", "/model.9", "-o", "out.onnx")
    assert "score matrix" not in ended.sentence(2)
