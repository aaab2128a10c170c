"""`graphsurgery tensorrt` and its commands."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.graphsurgery.tensorrt.models import given, single

COMMANDS = ("check", "precision", "command", "build")
needs_none = pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")


@pytest.fixture
def gated(cli: Any, folder: Path) -> str:
    """The small detector with SimAM."""
    ended = cli(
        "insert", "detector.onnx", "--module", "simam", "--after", "/model.8", "-o", "gated.onnx", "--no-verify"
    )
    assert ended.code == 0, ended.err
    return "gated.onnx"


def test_help_names_the_group_and_its_commands(cli: Any) -> None:
    assert "  tensorrt " in cli("--help").text
    ended = cli("tensorrt", "--help")
    assert ended.code == 0
    listed = ended.text.partition("Commands:\n")[2]
    assert [name for name in COMMANDS if f"  {name} " in listed] == list(COMMANDS)
    assert "..." not in listed
    for name in COMMANDS:
        assert f"Usage: graphsurgery tensorrt {name}" in cli("tensorrt", name, "--help").text


def test_without_a_command(cli: Any) -> None:
    ended = cli("tensorrt")
    assert (ended.code, ended.out) == (2, b"")
    assert ended.err.startswith("Usage: graphsurgery tensorrt")


@pytest.mark.parametrize("version", ["8.6", "10", "11"])
def test_check(cli: Any, gated: str, version: str) -> None:
    ended = cli("tensorrt", "check", gated, "--version", version)
    assert ended.code == 0, ended.err
    assert "inserted blocks (model.8.simam)" in ended.text
    assert f"TensorRT {version} takes this model" in ended.text


def test_check_as_json(cli: Any, gated: str) -> None:
    ended = cli("tensorrt", "check", gated, "--dla", "orin", "--precision", "fp16", "--json")
    data = json.loads(ended.text)
    assert (ended.code, data["stops"], data["dla"], data["precision"]) == (0, False, "orin", "fp16")
    assert data["insertions"] == ["model.8.simam"]
    found = data["inserted"][0]
    where = {"node", "operator", "position", "within", "path", "insertion"}
    assert set(found) == where | {"rule", "severity", "sentence", "source", "instead"}
    assert (found["rule"], found["insertion"]) == ("dla-operator", "model.8.simam")
    assert found["path"] == "/model.8/simam"


def test_check_of_what_is_refused(cli: Any, small_model: Any) -> None:
    path = small_model(kind=9, shape=[1, 2, 3, 4])  # booleans through Identity are taken
    assert cli("tensorrt", "check", path).code == 0
    path = small_model("other.onnx", kind=5)  # int16 is not
    ended = cli("tensorrt", "check", path, "--quiet")
    assert (ended.code, ended.out, ended.err) == (1, b"", "")


def test_plugins_of_the_user(cli: Any, folder: Path) -> None:
    (folder / "custom.onnx").write_bytes(single("Magic", given(), domain="lab").SerializeToString())
    refused = cli("tensorrt", "check", "custom.onnx")
    assert refused.code == 1
    assert "--plugin Magic says that you have one of this name" in refused.text
    alone = cli("tensorrt", "check", "custom.onnx", "--parser", "none", "--json")
    said = json.loads(alone.text)["model_findings"]
    assert ["--plugin Magic" in each["sentence"] for each in said] == [True]
    assert cli("tensorrt", "check", "custom.onnx", "--plugin", "Magic").code == 0
    (folder / "plugins.txt").write_text("# of the lab\nOther\n Magic \n\n")
    assert cli("tensorrt", "check", "custom.onnx", "--plugin", "plugins.txt", "--plugin", "Third").code == 0
    (folder / "windows.txt").write_bytes(b"\xef\xbb\xbfMagic\r\n  # indented\r\n")
    assert cli("tensorrt", "check", "custom.onnx", "--plugin", "windows.txt").code == 0
    assert cli("tensorrt", "check", "custom.onnx", "--plugin", "").sentence(2).startswith("nothing is neither a file")
    ended = cli("tensorrt", "check", "custom.onnx", "--plugin", "custom.onnx")
    assert ended.sentence(2).startswith("custom.onnx is no list of plugins")
    ended = cli("tensorrt", "check", "custom.onnx", "--plugin", "missing.txt")
    assert ended.sentence(2).startswith("missing.txt is neither a file nor the name of an operator")


def test_the_first_three_lines_answer(cli: Any, gated: str) -> None:
    for name in ("check", "precision"):
        lines = cli("tensorrt", name, gated, "--version", "11").text.splitlines()
        assert [line.partition(":")[0] for line in lines[:3]] == ["will it build", "FP16", "INT8"]
        answers = json.loads(cli("tensorrt", name, gated, "--version", "11", "--json").text)["summary"]
        assert [line.partition(": ")[2] for line in lines[:3]] == [answers[key] for key in ("builds", "fp16", "int8")]


@needs_none
def test_check_with_tensorrt_required(cli: Any, gated: str) -> None:
    assert "TensorRT for Python is not installed" in cli("tensorrt", "check", gated, "--require-tensorrt").sentence(3)


def test_check_of_an_unknown_version(cli: Any, gated: str) -> None:
    assert "no table for TensorRT 7" in cli("tensorrt", "check", gated, "--version", "7").sentence(2)


def test_precision(cli: Any, gated: str, folder: Path) -> None:
    ended = cli("tensorrt", "precision", gated)
    assert ended.code == 0
    assert "/model.8/simam/InstanceNormalization" in ended.text
    data = json.loads(cli("tensorrt", "precision", gated, "--json").text)
    assert {node["runs_in"] for node in data["nodes"]} == {"float32"}
    assert data["list"] is None


def test_precision_writes_the_list(cli: Any, gated: str, folder: Path) -> None:
    shown = cli("tensorrt", "precision", gated, "--format", "autocast")
    assert shown.text.splitlines()[0] == r"/model\.8/simam/InstanceNormalization$"
    written = cli("tensorrt", "precision", gated, "--format", "autocast", "-o", "nodes.txt")
    assert (written.code, written.out) == (0, b"")
    assert (folder / "nodes.txt").read_text() == shown.text
    again = cli("tensorrt", "precision", gated, "--format", "trtexec", "-o", "nodes.txt")
    assert "nodes.txt" in again.sentence(2)
    assert cli("tensorrt", "precision", gated, "--format", "trtexec", "-o", "nodes.txt", "--force").code == 0
    assert (folder / "nodes.txt").read_text().startswith("--precisionConstraints=obey\n--layerPrecisions=")


def test_nothing_takes_the_place_of_a_model(cli: Any, gated: str, folder: Path, unchanged: Any) -> None:
    (folder / "link.onnx").symlink_to(gated)
    with unchanged():
        for output in (gated, "link.onnx"):
            ended = cli("tensorrt", "precision", gated, "--format", "autocast", "-o", output, "--force")
            assert ended.sentence(2) == f"{output} is the model itself; give the list another name"
            ended = cli("tensorrt", "build", gated, "-o", output, "--force")
            assert ended.sentence(2) == f"{output} is the model itself; give the engine another name"
        baseline = ("--baseline", "detector.onnx")
        ended = cli("tensorrt", "build", gated, *baseline, "-o", "detector.onnx", "--force")
        assert "is the model itself" in ended.sentence(2)


def test_precision_prints_one_object_where_the_list_must_not_be_written(cli: Any, gated: str, folder: Path) -> None:
    (folder / "nodes.txt").write_text("kept")
    ended = cli("tensorrt", "precision", gated, "--format", "autocast", "-o", "nodes.txt", "--json")
    assert "exists already" in ended.error(2)
    assert json.loads(ended.text).keys() == {"error"}
    assert (folder / "nodes.txt").read_text() == "kept"


def test_precision_of_nothing(cli: Any) -> None:
    assert "no insertions" in cli("tensorrt", "precision", "detector.onnx").sentence(2)
    assert "no format was given" in cli("tensorrt", "precision", "detector.onnx", "-o", "x").sentence(2)


def test_command(cli: Any, gated: str) -> None:
    ended = cli("tensorrt", "command", gated, "--version", "10", "--precision", "fp16")
    assert ended.code == 0
    lines = [shlex.split(line) for line in ended.text.splitlines()]
    assert [line[0] for line in lines] == ["trtexec"] * 3
    assert "--fp16" in lines[0]
    data = json.loads(cli("tensorrt", "command", gated, "--version", "11", "--precision", "fp16", "--json").text)
    assert [each["purpose"] for each in data["commands"]] == ["convert", "build", "time", "profile"]
    assert shlex.split(data["commands"][1]["line"]) == data["commands"][1]["arguments"]


def test_command_needs_a_file(cli: Any) -> None:
    assert "trtexec reads a file" in cli("tensorrt", "command").sentence(2)
    assert "trtexec reads a file" in cli("tensorrt", "command", "-").sentence(2)


@needs_none
def test_build_says_what_to_run_elsewhere(cli: Any, gated: str, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    said = cli("tensorrt", "build", gated, "--precision", "fp16", "-o", "gated.plan").sentence(3)
    assert said.startswith("TensorRT for Python is not installed")
    command = shlex.split(said.partition("run: ")[2])
    assert command[:2] == ["trtexec", f"--onnx={gated}"]
    assert "--fp16" in command
    assert sorted(path.name for path in folder.iterdir()) == before


def test_build_needs_a_file_and_an_honest_target(cli: Any, gated: str) -> None:
    assert "TensorRT reads a file" in cli("tensorrt", "build").sentence(2)
    assert "not written to standard output" in cli("tensorrt", "build", gated, "-o", "-").sentence(2)
    assert "gated.onnx" in cli("tensorrt", "build", gated, "-o", gated).sentence(2)
    assert "no precision 'fp8'" in cli("tensorrt", "build", gated, "--precision", "fp8").sentence(2)
    assert "there is no file" in cli("tensorrt", "build", "nowhere.onnx").sentence(2)
