"""Warnings reach whoever calls from Python, at the line of the call; the command line prints its own, once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

import graphsurgery
from graphsurgery import GraphSurgeryWarning
from graphsurgery.cli.main import main
from tests import models

ASKED: dict[str, Any] = {"after": "/model.2", "settings": {"e_lambda": 512}}
RECIPE = "- {module: simam, after: [/model.2, /model.0], settings: {e_lambda: 512}}"


def test_of_an_insertion() -> None:
    with pytest.warns(GraphSurgeryWarning, match=r"^model\.2\.simam: e_lambda=512 makes the gate a constant") as told:
        graphsurgery.insert(models.detector(), "simam", **ASKED)
    assert [each.filename for each in told] == [__file__]
    assert issubclass(GraphSurgeryWarning, UserWarning)


def test_of_a_recipe() -> None:
    with pytest.warns(GraphSurgeryWarning) as told:
        graphsurgery.Recipe.from_text(RECIPE).apply(models.detector())
    assert [str(each.message).partition(":")[0] for each in told] == ["model.2.simam", "model.0.simam"]
    assert {each.filename for each in told} == {__file__}


def test_as_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", GraphSurgeryWarning)
        graphsurgery.insert(models.detector(), "simam", after="/model.2")
        with pytest.raises(GraphSurgeryWarning):
            graphsurgery.insert(models.detector(), "simam", **ASKED)


def test_the_command_line_says_it_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(models.detector().SerializeToString())
    request = ["--module", "simam", "--after", "/model.2", "--set", "e_lambda=512", "--no-verify"]
    with warnings.catch_warnings():
        assert main(["insert", str(tmp_path / "m.onnx"), *request, "-o", str(tmp_path / "o.onnx")]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert printed.out.count("e_lambda=512 makes the gate") == 1
