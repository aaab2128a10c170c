"""`tensorrt check` with NVIDIA's parser, and `insert --check tensorrt`: what is printed, written, and ended with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.models import chain
from tests.rtx import Fake, no_rtx, rtx

__all__ = ["no_rtx", "rtx"]
PROOF = {"GraphSurgeryProof": [6, "Plugin not found"]}
REFUSED = {**PROOF, "InstanceNormalization": [9, "epsilon is out of range"]}
CHECK = ("tensorrt", "check", "detector.onnx")
INSERT = ("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", "-o", "out.onnx", "--no-verify")


def write(folder: Path, *operators: str) -> str:
    (folder / "m.onnx").write_bytes(chain(*operators).SerializeToString())
    return "m.onnx"


def test_the_parser_is_asked_where_it_is(rtx: Fake, cli: Any) -> None:
    rtx()
    ended = cli(*CHECK, "--build")
    assert ended.code == 0, ended.err
    assert "NVIDIA's parser (TensorRT for RTX 1.7.1, of the generation of TensorRT 11) takes the model" in ended.text
    assert "an engine was built in" in ended.text
    assert "NVIDIA" not in cli(*CHECK, "--parser", "none").text


@pytest.mark.parametrize(("version", "code"), [("8.6", 0), ("10", 0), ("11", 1)])
def test_a_refusal_ends_with_1_for_its_generation(rtx: Fake, cli: Any, folder: Path, version: str, code: int) -> None:
    rtx(refused={**PROOF, "Neg": [9, "no"]})
    ended = cli("tensorrt", "check", write(folder, "Relu", "Neg"), "--version", version, "--json")
    told = json.loads(ended.text)
    assert (ended.code, told["stops"], told["rtx"]["supported"]) == (code, code == 1, False)
    (finding,) = told["model_findings"]
    assert (finding["rule"], finding["node"]) == ("nvidia-parser", "n1")
    (error,) = told["rtx"]["errors"]
    assert (error["words"], error["node"], error["operator"]) == ("no", 1, "Neg")


@pytest.mark.usefixtures("no_rtx")
def test_a_parser_that_is_not_installed(cli: Any) -> None:
    ended = cli(*CHECK)
    assert ended.code == 0
    assert "NVIDIA's parser was not asked: " in ended.text
    for wanted in ("--require-parser", "--build", "--parser=rtx"):
        assert 'is not installed; pip install "graphsurgery[parser]"' in cli(*CHECK, wanted).sentence(3)


def test_requests_that_contradict_themselves(cli: Any) -> None:
    assert "--build needs NVIDIA's parser; drop --parser none" in cli(*CHECK, "--parser", "none", "--build").sentence(2)
    assert "--require-parser needs" in cli(*CHECK, "--parser", "none", "--require-parser").sentence(2)
    assert "there is no parser 'nvidia'" in cli(*CHECK, "--parser", "nvidia").sentence(2)


def test_a_library_that_dies(rtx: Fake, cli: Any) -> None:
    rtx(at=["parsed", 2, "crash"])
    ended = cli(*CHECK, "--version", "11")
    assert (ended.code, ended.err) == (0, "")
    assert "NVIDIA's library died (SIGSEGV) while it parsed the model" in ended.text
    assert "there is no verdict" in cli(*CHECK, "--require-parser").sentence(3)


def test_files_that_are_no_models(rtx: Fake, cli: Any, folder: Path) -> None:
    rtx()
    (folder / "empty.onnx").touch()
    (folder / "text.onnx").write_text("not a model")
    for name in ("empty.onnx", "text.onnx", "none.onnx"):
        assert name in cli("tensorrt", "check", name, "--require-parser").sentence(2)


# ---------------------------------------------------------------------- insert --check


@pytest.mark.usefixtures("no_rtx")
def test_a_result_that_is_checked(cli: Any, folder: Path) -> None:
    ended = cli(*INSERT, "--check", "tensorrt:8.6")
    assert ended.code == 0, ended.err
    assert "TensorRT 8.6 takes this model" in ended.text
    assert (folder / "out.onnx").exists()
    told = json.loads(cli(*INSERT, "--check", "tensorrt", "--force", "--json").text)
    assert (told["tensorrt"]["version"], told["tensorrt"]["insertions"]) == ("10", ["model.8.simam"])
    assert "tensorrt" not in json.loads(cli(*INSERT, "--force", "--json").text)


def test_a_result_that_is_refused_is_not_written(rtx: Fake, cli: Any, folder: Path) -> None:
    rtx(refused=REFUSED)
    ended = cli(*INSERT, "--check", "tensorrt:11")
    assert "TensorRT 11 does not take the result; nothing was written" in ended.error(1)
    assert "epsilon is out of range" in ended.text
    assert "written to" not in ended.text
    assert not (folder / "out.onnx").exists()
    told = json.loads(cli(*INSERT, "--check", "tensorrt:11", "--json").text)
    assert (told["output"], told["tensorrt"]["stops"]) == (None, True)
    assert told["error"]["option"] == "--check"
    assert cli(*INSERT, "--check", "tensorrt").code == 0, "a warning for 10"


def test_a_recipe_is_checked_too(rtx: Fake, cli: Any, folder: Path) -> None:
    rtx(refused=REFUSED)
    (folder / "r.yaml").write_text("- {module: simam, after: /model.8}")
    where = ("-o", "out.onnx", "--no-verify", "--check")
    assert cli("apply", "r.yaml", "detector.onnx", *where, "tensorrt:11").error(1)
    assert not (folder / "out.onnx").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [("onnx", "--check takes tensorrt or tensorrt:VERSION"), ("tensorrt:7", "no table for TensorRT 7")],
)
def test_checks_that_there_are_not(cli: Any, folder: Path, value: str, words: str) -> None:
    assert words in cli(*INSERT, "--check", value).sentence(2)
    assert not (folder / "out.onnx").exists()
