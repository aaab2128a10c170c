"""Real exports: each block, every variant, at the sites where people put them.

The YOLO models take each variant by itself; RT-DETR-L, ten times as large, takes all of them in one model. There each
is compared in the long matrix, in one model and by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import graphsurgery as gsx
from graphsurgery.api import carry_out
from graphsurgery.request import Request
from tests.exports import UNSORTED, export

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("simam", {}),
    ("se", {}),
    ("se", {"bias": False}),
    *((f"ge[{variant}]", {"extent": e}) for variant in ("theta-minus", "theta", "theta-plus") for e in (0, 2, 4, 8)),
    ("nam", {}),
    ("nam[channel+spatial]", {}),
]
SITES = {"yolov8n": ("/model.8",), "yolo11n": ("/model.8",), "rtdetr-l": ("/model.5", "/model.9")}
VARIANTS = ("torchscript", "simplified", "dynamo", "dynamo-external", "half", "half-converted", "dynamic")
EXACT_IDENTITY = ("se", "ge[theta]", "ge[theta-plus]", "nam", "nam[channel+spatial]")
# of these, what has as many weights as the map has positions cannot stand where that number is not known
STATIC_ONLY = ("nam[channel+spatial]", "ge[theta]0", "ge[theta-plus]0")


@dataclass(frozen=True)
class Case:
    model: str
    variant: str
    block: str
    settings: dict[str, object]
    site: str

    def __str__(self) -> str:
        settings = ",".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.model}-{self.variant}-{self.block}{settings and ':' + settings}-{self.site.strip('/')}"


def fits(variant: str, block: str, settings: dict[str, object]) -> bool:
    return variant != "dynamic" or f"{block}{settings.get('extent', '')}" not in STATIC_ONLY


def cases(models: tuple[str, ...], variants: tuple[str, ...] = VARIANTS) -> list[Case]:
    return [
        Case(model, variant, block, settings, site)
        for model in models
        for variant in variants
        for block, settings in BLOCKS
        for site in SITES[model]
        if fits(variant, block, settings)
    ]


def run(path: Path, feeds: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def saved_and_run(model: gsx.ModelFile, name: str, variant: str) -> list[np.ndarray[Any, Any]]:
    """The outputs of the model as it is written to a folder of its own, after onnx's checker has seen it there."""
    with TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "edited.onnx")
        if variant not in UNSORTED:  # the checker refuses these exports as they are
            onnx.checker.check_model(path)
        return run(path, image(name, variant))


@cache
def original(name: str, variant: str) -> gsx.ModelFile:
    return gsx.ModelFile.load(export(name, variant))


@cache
def image(name: str, variant: str) -> dict[str, np.ndarray[Any, Any]]:
    value = original(name, variant).structure.graph.input[0]
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    size = 320 if variant == "dynamic" else 640
    return {value.name: np.random.default_rng(7).random((1, 3, size, size)).astype(kind)}


@cache
def answer(name: str, variant: str) -> list[np.ndarray[Any, Any]]:
    return run(export(name, variant), image(name, variant))


def check_runs(edited: gsx.ModelFile, name: str, variant: str) -> None:
    """Valid, runs in onnxruntime, and gives outputs like those of the original."""
    before, after = answer(name, variant), saved_and_run(edited, name, variant)
    assert [(a.shape, a.dtype) for a in after] == [(b.shape, b.dtype) for b in before]
    assert all(np.isfinite(a).all() for a in after)


def check_restored(edited: gsx.ModelFile, path: Path) -> None:
    assert gsx.remove(edited).to_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_saving_without_an_edit_gives_the_same_bytes(name: str, variant: str, tmp_path: Path) -> None:
    path = export(name, variant)
    saved = gsx.ModelFile.load(path).save(tmp_path / "copy.onnx")
    assert saved.read_bytes() == path.read_bytes()


def check(case: Case) -> None:
    path = export(case.model, case.variant)
    edited = gsx.insert(original(case.model, case.variant), case.block, after=case.site, settings=case.settings)
    check_runs(edited, case.model, case.variant)
    report = gsx.verify(edited, seeds=1)
    assert report.passed, "\n".join(report.lines())
    check_restored(edited, path)


@pytest.mark.pairwise
@pytest.mark.parametrize("case", cases(("yolov8n", "yolo11n")), ids=str)
def test_each_block_in_the_yolo_exports(case: Case) -> None:
    check(case)


@pytest.mark.long
@pytest.mark.parametrize("case", cases(("rtdetr-l",)), ids=str)
def test_each_block_in_the_rtdetr_exports(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("parity", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_blocks_at_once_in_the_rtdetr_exports(variant: str, parity: bool) -> None:
    """Every variant, one behind the other, behind both sites."""
    model, path = original("rtdetr-l", variant), export("rtdetr-l", variant)
    wanted = [(block, settings) for block, settings in BLOCKS if fits(variant, block, settings)]
    requests = [Request(block, SITES["rtdetr-l"], settings) for block, settings in wanted]
    edited, done = carry_out(model, requests)
    assert len(done) == 2 * len(wanted)
    check_runs(edited, "rtdetr-l", variant)
    if parity:
        report = gsx.verify(edited, seeds=1)
        assert report.passed, "\n".join(report.lines())
    check_restored(edited, path)


@pytest.mark.parametrize("block", EXACT_IDENTITY)
@pytest.mark.parametrize("variant", ["simplified", "half"])
def test_identity_leaves_the_output_of_yolov8n_bit_equal(block: str, variant: str) -> None:
    for extent in (0, 2, 4, 8) if block.startswith("ge") else (None,):
        settings = {} if extent is None else {"extent": extent}
        edited = gsx.insert(original("yolov8n", variant), block, after="/model.8", settings=settings, init="identity")
        for before, after in zip(answer("yolov8n", variant), saved_and_run(edited, "yolov8n", variant), strict=True):
            np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(("block", "settings"), BLOCKS)
def test_a_closed_gate_leaves_the_output_of_yolov8n_bit_equal(block: str, settings: dict[str, object]) -> None:
    model = original("yolov8n", "simplified")
    edited = gsx.insert(model, block, after="/model.8", settings=settings, gate="residual")
    for before, after in zip(
        answer("yolov8n", "simplified"), saved_and_run(edited, "yolov8n", "simplified"), strict=True
    ):
        np.testing.assert_array_equal(after, before)
