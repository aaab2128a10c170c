"""What every command does alike: options given twice, errors as JSON, quiet, verbose, dry runs, `python -m`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import graphsurgery as gsx
from graphsurgery.cli.main import application, main
from graphsurgery.errors import MissingDependency
from graphsurgery.runtime import providers

AFTER = ("-a", "/model.8")


def test_python_m(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "graphsurgery", "--version"], capture_output=True, text=True, cwd=folder
    )
    assert (done.returncode, done.stdout) == (0, f"graphsurgery {gsx.__version__}\n")
    done = subprocess.run([sys.executable, "-m", "graphsurgery", "inser"], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 2


# ---------------------------------------------------------------------- an option given twice


@pytest.mark.parametrize("modules", [("-m", "simam", "-m", "se"), ("--module", "simam, se"), ("-m", "simam,se")])
def test_several_blocks_are_written_out_as_a_recipe_and_as_commands(cli: Any, folder: Path, modules: Any) -> None:
    ended = cli("insert", "detector.onnx", *modules, *AFTER, "-a", "/model.6", "--gate", "residual", "--no-verify")
    assert (ended.code, ended.out) == (2, b"")
    first, *lines = ended.err.splitlines()
    said = "insert puts in one block, not 2 (simam, se): apply a recipe, or insert one after the other"
    assert first == f"graphsurgery: error: {said}"
    lines = [line[2:] for line in lines]
    recipe, commands = lines[1 : lines.index("")], [line for line in lines if line.startswith("graphsurgery ")]
    (folder / "recipe.yaml").write_text("\n".join(recipe))
    assert len(commands) == 3
    for command in commands:
        assert main([*shlex.split(command)[1:], "--force"]) == 0, command
    ids = ["model.6.se", "model.6.simam", "model.8.se", "model.8.simam"]
    assert sorted(i.id for i in gsx.ModelFile.load(folder / "out.onnx").insertions()) == ids
    assert all(i.gate == "residual" for i in gsx.ModelFile.load(folder / "out.onnx").insertions())
    assert main([*shlex.split(commands[0])[1:], "--force"]) == 0
    assert sorted(i.id for i in gsx.ModelFile.load(folder / "out.onnx").insertions()) == ids


def test_several_blocks_keep_every_option(cli: Any) -> None:
    ended = cli(
        *(
            "insert",
            "in.onnx",
            "-m",
            "se",
            "-m",
            "ge[theta]",
            "-m",
            "gam",
            *AFTER,
            "--set",
            "reduction=8",
            "--seed",
            "3",
        ),
        *("--in-place", "--providers", "cpu", "-q"),
    )
    text = ended.err
    assert "not 3 (se, ge[theta], gam)" in text
    assert "settings: {reduction: '8'}" in text
    assert "seed: 3" in text
    assert "graphsurgery apply recipe.yaml in.onnx --providers cpu --in-place --quiet" in text
    line = (
        "graphsurgery insert in.onnx --module 'ge[theta]' --after /model.8 --set reduction=8 --seed 3 --providers cpu"
    )
    assert f"{line} --in-place --quiet" in text


WRITTEN_OUT = {
    "standard output": (("detector.onnx", "-o", "-"), False),
    "/dev/stdout": (("detector.onnx", "-o", "/dev/stdout"), False),
    "standard input": (("-", "-o", "result.onnx"), True),
    "a pipe": ((), True),
    "in place": (("detector.onnx", "--in-place"), False),
    "dry run": (("detector.onnx", "-o", "result.onnx", "--dry-run"), False),
    "dry run in place": (("detector.onnx", "--in-place", "--dry-run"), False),
    "no result": (("detector.onnx", "--dry-run"), False),
}


@pytest.mark.parametrize(("words", "piped"), WRITTEN_OUT.values(), ids=WRITTEN_OUT)
def test_written_out_commands_run_as_they_stand(command: Any, folder: Path, words: Any, piped: bool) -> None:
    given = (folder / "detector.onnx").read_bytes()
    stdin = {"stdin": given} if piped else {}
    said = command("insert", *words, "-m", "simam", "-m", "se", *AFTER, "--no-verify", "--seed", "3", **stdin).err
    lines = [line[2:] for line in said.splitlines()[1:]]
    (folder / "recipe.yaml").write_text("\n".join(lines[1 : lines.index("")]))
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("graphsurgery ")]
    assert [each[0] for each in commands] == ["apply", "insert", "insert"]
    for steps in (commands[:1], commands[1:]):
        for step in steps:
            ended = command(*step, **stdin)
            assert ended.code == 0, (step, ended.err)
        results = [folder / "result.onnx", folder / "detector.onnx"]
        written = ended.out if ended.out[:1] == b"\x08" else next(p for p in results if p.exists()).read_bytes()
        ids = [] if "--dry-run" in words else ["model.8.se", "model.8.simam"]
        assert sorted(i.id for i in gsx.ModelFile.load(written).insertions()) == ids
        (folder / "detector.onnx").write_bytes(given)
        (folder / "result.onnx").unlink(missing_ok=True)


def test_help_is_shown_whatever_else_is_given(cli: Any) -> None:
    ended = cli("insert", "-h", "-o", "a", "-o", "b", "-m", "simam", "-m", "se")
    assert (ended.code, ended.err) == (0, "")
    assert ended.text.startswith("Usage: graphsurgery insert")


def test_a_number_that_is_none_is_told_in_plain_words(cli: Any) -> None:
    for command, flag in (("insert", "--seed"), ("sites", "--depth"), ("bench", "--rounds")):
        assert cli(command, flag, "x").sentence(2) == f"invalid value for '{flag}': 'x' is not a whole number"


def test_what_to_install_can_be_pasted_to_the_end_of_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency) as found:
        providers.onnxruntime()
    for said in (str(found.value), providers.missing("cuda", ["cpu"])):
        line = said[said.index("pip ") :]
        done = subprocess.run(
            ["sh", "-c", f'pip() {{ printf "%s\\n" "$*"; }}; {line}'], capture_output=True, text=True, check=True
        )
        assert re.fullmatch(r"(uninstall -y onnxruntime\n)?install graphsurgery\[(cpu|gpu)\]\n", done.stdout), said


def test_several_blocks_and_an_option_with_one_value_given_twice(cli: Any) -> None:
    twice = ("--gate", "residual", "--gate", "none")
    said = cli("insert", "detector.onnx", "-m", "simam", "-m", "se", *AFTER, *twice).sentence(2)
    assert said.startswith("--gate takes one value and was given 2: residual, none")


def test_a_comma_within_a_variant_is_no_list(cli: Any) -> None:
    assert "has no variant 'a,b'" in cli("insert", "detector.onnx", "-m", "ge[a,b]", *AFTER, "--dry-run").sentence(2)


def test_a_comma_in_the_name_of_a_file_is_no_list(cli: Any, folder: Path) -> None:
    shutil.copy(folder / "detector.onnx", folder / "my,block.onnx")
    said = cli("insert", "detector.onnx", "-m", "./my,block.onnx", *AFTER, "--dry-run").error(2)
    assert "insert puts in one block" not in said
    assert "my,block.onnx" in said
    (folder / "my,block.onnx").unlink()
    said = cli("insert", "detector.onnx", "-m", "./my,block.onnx", *AFTER, "--dry-run").sentence(2)
    assert "my,block.onnx" in said
    assert "insert puts in one block" not in said
    ended = cli("insert", "detector.onnx", "-m", "./my,block.onnx", "-m", "simam,se", *AFTER, "--dry-run")
    assert "not 3 (./my,block.onnx, simam, se)" in ended.err


def single_valued() -> list[tuple[str, str, str]]:
    """Command, parameter and flag of every option that takes one value."""
    found = []
    root = typer.main.get_command(application())
    groups = [("", root), ("tensorrt ", root.commands["tensorrt"])]  # type: ignore[attr-defined]
    for prefix, group in groups:
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            for each in getattr(command, "params", []):
                if isinstance(each, typer.core.TyperOption) and not each.is_flag and not each.multiple:
                    found.append((f"{prefix}{name}", each.name or "", max(each.opts, key=len)))
    return found


@pytest.mark.parametrize(("command", "name", "flag"), [each for each in single_valued() if each[1] != "module"])
def test_any_option_with_one_value_given_twice(cli: Any, command: str, name: str, flag: str) -> None:
    said = cli(*command.split(), flag, "1", flag, "2").sentence(2)
    assert said == f"{flag} takes one value and was given 2: 1, 2; for each of them, run the command once"


def test_options_that_take_several_values_and_flags_may_be_repeated(cli: Any) -> None:
    ended = cli(
        "insert", "detector.onnx", "-m", "simam", *AFTER, "-a", "/model.6", "--dry-run", "-q", "-q", "--no-verify"
    )
    assert ended.code == 0
    assert len(single_valued()) > 20


def test_the_arguments_of_apply_exchanged(cli: Any, folder: Path) -> None:
    (folder / "my recipe.yaml").write_text("- {module: simam, after: /model.8}")
    said = cli("apply", "detector.onnx", "my recipe.yaml", "-o", "out.onnx").sentence(2)
    assert said == "the recipe comes first: graphsurgery apply 'my recipe.yaml' detector.onnx ..."


def commands() -> dict[str, Any]:
    """Every command by its words."""
    root: Any = typer.main.get_command(application())
    group = root.commands["tensorrt"].commands
    return {**root.commands, **{f"tensorrt {name}": command for name, command in group.items()}}


@pytest.mark.parametrize("name", [name for name in commands() if name != "tensorrt"])
def test_every_argument_and_option_is_explained(name: str) -> None:
    command = commands()[name]
    assert "Parameters" not in command.help
    assert len(command.params) > 2
    for each in command.params:
        assert each.help, each.name
        assert "``" not in each.help
        assert each.metavar or getattr(each, "is_flag", False), each.name


# ---------------------------------------------------------------------- errors as JSON


def failure(cli: Any, *arguments: str) -> dict[str, Any]:
    ended = cli(*arguments, "--json")
    data = json.loads(ended.out)
    assert list(data) == ["error"]
    assert list(data["error"]) == ["code", "type", "message", "option", "candidates"]
    assert ended.code == data["error"]["code"]
    assert "\ue000" not in ended.text
    error: dict[str, Any] = data["error"]
    return error


def test_errors_as_json(cli: Any, folder: Path) -> None:
    insert = ("insert", "detector.onnx", "-m", "simam", "--dry-run")
    assert failure(cli, *insert, *AFTER, "--gate", "half") == {
        "code": 2,
        "type": "RequestError",
        "message": "there is no gate 'half'; it is one of none, residual",
        "option": "--gate",
        "candidates": ["none", "residual"],
    }
    assert failure(cli, *insert) == {
        "code": 2,
        "type": "RequestError",
        "message": "where should simam go? give --after SELECTOR or --before SELECTOR",
        "option": "--after",
        "candidates": [],
    }
    assert failure(cli, *insert, "-a", "/model.80")["type"] == "SelectorError"
    assert failure(cli, "info", "gone.onnx")["message"] == "there is no file gone.onnx"
    assert failure(cli, "blocks", "sinam")["type"] == "BlockError"
    wrong = failure(cli, "sites", "detector.onnx", "--dept", "2")
    assert (wrong["type"], wrong["option"]) == ("UsageError", None)
    assert "--depth" in wrong["candidates"]
    twice = failure(cli, *insert, *AFTER, "--seed", "1", "--seed", "2")
    assert (twice["option"], twice["code"]) == ("--seed", 2)
    assert failure(cli, "tensorrt", "check", "detector.onnx", "--require-tensorrt")["code"] == 3


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("diff", "detector.onnx"), None),
        (("blocks", "sinam"), None),
        (("sites", "detector.onnx", "/model.80"), None),
        (("sites", "detector.onnx", "--depth", "0"), "--depth"),
        (("insert", "detector.onnx", "-m", "sinam", *AFTER, "--dry-run"), "--module"),
        (("insert", "detector.onnx", "-m", "simam", "-b", "/model.80", "--dry-run"), "--before"),
        (("insert", "detector.onnx", "-m", "simam", *AFTER, "--set", "x=1", "--dry-run"), "--set"),
        (("insert", "detector.onnx", "-m", "simam", *AFTER, "-o", "detector.onnx"), "--output"),
        (("bench", "detector.onnx", "--baseline", "detector.onnx", "--shape", "x=1"), "--shape"),
        (("bench", "detector.onnx", "--baseline", "detector.onnx", "--shape", "x=1y"), "--shape"),
        (("tensorrt", "check", "detector.onnx", "--version", "9"), "--version"),
        (("tensorrt", "check", "detector.onnx", "--dla", "x"), "--dla"),
        (("gone",), None),
    ],
    ids=str,
)
def test_the_option_of_an_error_is_a_flag_of_the_command(
    cli: Any, folder: Path, words: tuple[str, ...], flag: str | None
) -> None:
    assert failure(cli, *words)["option"] == flag


def test_a_failed_check_is_one_object_with_the_result_and_the_error(cli: Any, folder: Path) -> None:
    model = gsx.insert("detector.onnx", "se", after="/model.8").proto()
    for tensor in model.graph.initializer:
        if "model.8.se" in tensor.name or tensor.name.startswith("/model.8/se"):
            tensor.raw_data = bytes(len(tensor.raw_data))
    model.graph.node[0].name += "x"
    (folder / "changed.onnx").write_bytes(model.SerializeToString())
    ended = cli("verify", "changed.onnx", "--original", "detector.onnx", "--providers", "cpu", "--seeds", "1", "--json")
    data = json.loads(ended.out)
    assert ended.code == 1
    assert data["passed"] is False
    assert data["error"]["type"] == "ParityFailed"
    assert data["error"]["code"] == 1


def test_an_error_as_json_keeps_out_of_a_stream_that_carries_a_model(command: Any, folder: Path) -> None:
    stdin = (folder / "detector.onnx").read_bytes()
    ended = command("insert", "-m", "simam", "-a", "/model.80", "--json", stdin=stdin)
    assert ended.code == 2
    assert ended.out == b""
    assert '"type": "SelectorError"' in ended.err


# ---------------------------------------------------------------------- quiet, verbose, dry


def test_quiet_prints_nothing_but_errors(cli: Any, folder: Path) -> None:
    gsx.insert("detector.onnx", "simam", after="/model.8").save(folder / "i.onnx")
    for arguments in (
        ("sites", "i.onnx"),
        ("info", "i.onnx"),
        ("blocks", "simam"),
        ("remove", "i.onnx"),
        ("diff", "detector.onnx", "i.onnx"),
        ("insert", "i.onnx", "-m", "se", "-a", "/model.6", "-o", "o.onnx", "--no-verify"),
        ("tensorrt", "check", "i.onnx"),
        ("tensorrt", "command", "i.onnx"),
        ("tensorrt", "precision", "i.onnx"),
    ):
        ended = cli(*arguments, "-q")
        assert (ended.code, ended.out, ended.err) == (0, b"", ""), arguments


def test_every_command_can_be_quiet() -> None:
    root = typer.main.get_command(application())
    commands = {**root.commands, **root.commands["tensorrt"].commands}  # type: ignore[attr-defined]
    del commands["tensorrt"]
    assert [name for name, each in commands.items() if "quiet" not in [p.name for p in each.params]] == []
    assert [name for name, each in commands.items() if "as_json" not in [p.name for p in each.params]] == []


def test_verbose_names_every_node(cli: Any, folder: Path) -> None:
    wanted = gsx.insert("detector.onnx", "se", after="/model.8").insertions()[0].nodes
    ended = cli("insert", "detector.onnx", "-m", "se", *AFTER, "-o", "o.onnx", "--no-verify", "-v")
    assert f"  nodes: {', '.join(wanted)}" in ended.text
    assert f"model.8.se: {', '.join(wanted)}" in cli("remove", "o.onnx", "-v").text
    assert "model.8.se: compared on " in cli("verify", "o.onnx", "--providers", "cpu", "--seeds", "1", "-v").text


@pytest.mark.parametrize("output", [(), ("-o", "out.onnx"), ("--in-place",)])
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    cli: Any, unchanged: Any, folder: Path, output: tuple[str, ...]
) -> None:
    gsx.insert("detector.onnx", "simam", after="/model.8").save(folder / "i.onnx")
    (folder / "r.yaml").write_text("- {module: simam, after: /model.6}")
    where = {"-o": "; it would go to out.onnx", "--in-place": "; it would go to i.onnx"}.get((*output, "")[0], "")
    with unchanged():
        for arguments in (
            ("insert", "i.onnx", "-m", "simam", "-a", "/model.6", "--no-verify"),
            ("apply", "r.yaml", "i.onnx", "--no-verify"),
            ("remove", "i.onnx", "--all"),
        ):
            ended = cli(*arguments, *output, "--dry-run")
            assert ended.code == 0, ended.err
            assert ended.text.splitlines()[-1] == f"nothing was written{where}"
            data = json.loads(cli(*arguments, *output, "--dry-run", "--json").out)
            assert data["output"] is None


def test_a_dry_run_verifies_and_refuses_as_the_real_one(cli: Any, unchanged: Any, folder: Path) -> None:
    (folder / "there.onnx").write_text("precious")
    with unchanged():
        ended = cli("insert", "detector.onnx", "-m", "simam", *AFTER, "--dry-run", "--providers", "cpu")
        assert "parity on cpu: passed" in ended.text
        said = cli("insert", "detector.onnx", "-m", "simam", *AFTER, "--dry-run", "-o", "there.onnx").sentence(2)
        assert "use --force" in said


def test_dry_runs_of_tensorrt(cli: Any, folder: Path) -> None:
    gsx.insert("detector.onnx", "simam", after="/model.8").save(folder / "i.onnx")
    ended = cli("tensorrt", "precision", "i.onnx", "--format", "autocast", "-o", "n.txt", "--dry-run")
    assert ended.text == "nothing was written; it would go to n.txt\n"
    ended = cli("tensorrt", "build", "i.onnx", "-o", "i.plan", "--dry-run")
    assert ended.text.startswith("nothing was built; it would be what this builds: trtexec --onnx=i.onnx")
    assert sorted(path.name for path in folder.iterdir()) == ["detector.onnx", "i.onnx"]


# ---------------------------------------------------------------------- spelling


def test_no_mark_of_an_option_is_ever_printed(cli: Any, folder: Path) -> None:
    for arguments in (("blocks",), ("blocks", "simam"), ("insert", "--help"), ("apply", "--help")):
        assert "\ue000" not in cli(*arguments).text
    assert "\\ue000" not in cli("blocks", "simam", "--json").text


@pytest.mark.parametrize(
    ("name", "value", "argument", "flag"),
    [
        ("after", "", "after=", "--after"),
        ("force", "True", "force=True", "--force"),
        ("gate", "residual", "gate='residual'", "--gate residual"),
        ("qdq_scale", "images", "qdq_scale='images'", "--qdq-scale images"),
        ("images", "DIR", "images=DIR", "--images DIR"),
        ("settings", "", "settings=", "--set"),
        ("settings", "bn_eps=0.001", "settings={'bn_eps': 0.001}", "--set bn_eps=0.001"),
        ("settings", "mode=max", "settings={'mode': 'max'}", "--set mode=max"),
        ("settings", "bias=False", "settings={'bias': False}", "--set bias=False"),
    ],
)
def test_both_spellings(name: str, value: str, argument: str, flag: str) -> None:
    error = gsx.GraphSurgeryError(f"use {gsx.errors.option(name, value)}")
    assert str(error) == f"use {argument}"
    assert gsx.errors.spelled(error.message, gsx.errors.as_flag) == f"use {flag}"


def test_install_hints_work_in_every_shell() -> None:
    root = Path(gsx.__file__).parent
    hints = [line for path in root.rglob("*.py") for line in path.read_text().splitlines() if "pip install" in line]
    assert hints
    assert [
        line for line in hints if "graphsurgery[" in line and '"graphsurgery[' not in line.replace('\\"', '"')
    ] == []
