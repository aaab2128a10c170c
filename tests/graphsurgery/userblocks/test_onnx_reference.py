"""Reports say what a block was really compared with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import graphsurgery
from graphsurgery.cli.main import main
from graphsurgery.errors import ParityFailed
from graphsurgery.verification import Verdict, verify
from tests import models

from .test_onnx_block import block, put, saved

ITSELF = "b.onnx itself in onnxruntime"


def test_a_block_from_a_file_is_compared_with_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = saved(block(), tmp_path / "b.onnx")
    made, result = str(tmp_path / "m.onnx"), str(tmp_path / "o.onnx")
    Path(made).write_bytes(models.detector().SerializeToString())
    assert main(["insert", made, "--module", path, "--after", "/model.2", "-o", result]) == 0
    printed = capfd.readouterr().out
    assert f"comparisons with {ITSELF}\n" in printed
    assert "PyTorch" not in printed
    assert main(["verify", result]) == 0
    printed = capfd.readouterr().out
    assert f"15 inputs, each compared with {ITSELF}, in float32\n" in printed
    assert "PyTorch" not in printed
    assert main(["verify", result, "--json"]) == 0
    (insertion,) = json.loads(capfd.readouterr().out)["insertions"]
    assert insertion["compared_with"] == {"what": ITSELF, "runtime": "onnxruntime", "dtype": "float32"}


@pytest.mark.parametrize(("dtype", "computed"), [("float16", "float32"), ("float64", "float64")])
def test_in_the_type_that_it_is_run_in(tmp_path: Path, dtype: str, computed: str) -> None:
    nodes = [helper.make_node("Sigmoid", ["in"], ["g"]), helper.make_node("Mul", ["in", "g"], ["out"])]
    path = saved(block(nodes, dtype=np.dtype(dtype)), tmp_path / "b.onnx")
    edited, _ = put(path, models.detector(dtype=np.dtype(dtype)))
    (insertion,) = verify(edited).insertions
    assert insertion.compared_with.dtype == computed


def test_a_failure_names_it(tmp_path: Path) -> None:
    edited, _ = put(saved(block(), tmp_path / "b.onnx"))
    report = verify(edited)
    (insertion,) = report.insertions
    rows = tuple(replace(row, verdict=Verdict.FAILED, reason="far off") for row in insertion.rows)
    with pytest.raises(ParityFailed, match=rf"^model\.2\.b does not agree with {ITSELF} \(cpu, optimised.*\): far off"):
        replace(report, insertions=(replace(insertion, rows=rows),)).require()
    with pytest.raises(ParityFailed, match=rf"could not be compared with {ITSELF} on cpu"):
        replace(report, insertions=(replace(insertion, rows=()),)).require()


def test_all_other_blocks_are_compared_with_pytorch() -> None:
    report = verify(graphsurgery.insert(models.detector(), "simam", after="/model.2"))
    assert report.to_json()["insertions"][0]["compared_with"] == {
        "what": "the PyTorch module",
        "runtime": "PyTorch",
        "dtype": "float64",
    }
    assert "  15 inputs, each compared with the PyTorch module, in float64" in report.lines()
