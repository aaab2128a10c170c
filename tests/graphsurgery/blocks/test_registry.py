"""Blocks of other packages, found through the entry-point group."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from graphsurgery import entry_points
from graphsurgery.blocks import registry
from graphsurgery.cards.cards import table
from graphsurgery.cli.main import main
from graphsurgery.errors import BlockError, GraphSurgeryError, GraphSurgeryWarning, MissingDependency
from graphsurgery.graph.index import GraphIndex
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.recognition.blocktree import recognise
from graphsurgery.userblocks import make_block
from tests import models

BLOCK = """
from graphsurgery.blocks.block import Block

class Half(Block):
    name, title, paper, reference, formula, untrained = "{name}", "Half", "none", "none", "y = x / 2", "halves"

    def emit(self, t, lowering):
        return t.mul(t.x, t.scalar(0.5, "half"))

    def module(self, feature):
        raise NotImplementedError
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Install a package next to the catalogue, as far as the registry can see."""
    real = entry_points.entry_points
    found = list(real(group=registry.ENTRY_POINTS))
    monkeypatch.syspath_prepend(tmp_path)
    registry.forget()

    def add(package: str, text: str) -> None:
        (tmp_path / f"{package}.py").write_text(text)
        monkeypatch.delitem(sys.modules, package, raising=False)
        found.append(EntryPoint(package, package, registry.ENTRY_POINTS))
        patched = lambda group: found if group == registry.ENTRY_POINTS else real(group=group)  # noqa: E731
        monkeypatch.setattr(entry_points, "entry_points", patched)

    yield add
    registry.forget()


def test_a_block_of_another_package_is_found(install) -> None:  # type: ignore[no-untyped-def]
    install("their_blocks", BLOCK.format(name="half"))
    assert make_block("half").spelled == "half"
    assert set(registry.all_blocks()) >= {"ge", "half", "nam", "se", "simam"}


BROKEN = "their_broken_blocks of the installed package their_broken_blocks cannot be loaded: "


@pytest.mark.parametrize(
    ("text", "reason", "error"),
    [
        ("import a_package_that_is_not_there", "No module named 'a_package_that_is_not_there'", MissingDependency),
        ("print('half way'); 1 / 0", "ZeroDivisionError: division by zero", BlockError),
        ("raise SystemExit(3)", "SystemExit: 3", BlockError),
        ("raise BaseException('x')", "BaseException: x", BlockError),
        ("raise GeneratorExit", "GeneratorExit", BlockError),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", BlockError),
        ("class E(BaseException):\n    def __str__(self): 1 / 0\nraise E", "E", BlockError),
        ("raise RecursionError('x' * 9)", "RecursionError: xxxxxxxxx", BlockError),
        ("raise ValueError('two\\nlines')", "ValueError: two lines", BlockError),
        ("(", "SyntaxError: '(' was never closed (their_broken_blocks.py, line 1)", BlockError),
    ],
)
def test_a_package_that_cannot_be_loaded_is_missed_only_by_who_needs_it(  # type: ignore[no-untyped-def]
    install, capsys: pytest.CaptureFixture[str], text: str, reason: str, error: type[GraphSurgeryError]
) -> None:
    install("their_broken_blocks", text)
    install("their_whole_blocks", BLOCK.format(name="half"))
    with pytest.warns(GraphSurgeryWarning) as told:
        make_block("simam")
    assert {"simam", "half"} < set(registry.all_blocks())
    assert [str(each.message) for each in told] == [BROKEN + reason]
    with pytest.raises(error) as raised:
        make_block("xyzzy")
    assert str(raised.value) == f"there is no block 'xyzzy' among those that can be loaded; {BROKEN}{reason}"
    with pytest.raises(BlockError) as raised:
        make_block("sinam")
    assert str(raised.value) == f"there is no block 'sinam'; did you mean simam or nam? ({BROKEN}{reason})"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "class Nameless(Block):\n    emit = module = None",
            "Nameless of the installed package theirs cannot be loaded: it has no name",
        ),
        (
            "class Half(Block):\n    name = 'half'",
            "Half of the installed package theirs cannot be loaded: it has no emit and no module",
        ),
    ],
)
def test_a_class_that_is_no_block(install, text: str, reason: str) -> None:  # type: ignore[no-untyped-def]
    install("theirs", f"from graphsurgery.blocks.block import Block\n\nclass Base(Block):\n    demand = 3\n\n{text}")
    with pytest.warns(GraphSurgeryWarning) as told:
        registry.all_blocks()
    assert [str(each.message) for each in told] == [f"theirs.{reason}"]


def test_a_name_of_the_catalogue_is_not_taken_silently(install) -> None:  # type: ignore[no-untyped-def]
    install("their_other_blocks", BLOCK.format(name="se"))
    words = (
        "there are 2 blocks called 'se', from graphsurgery (graphsurgery.patterns.attention.se) and their_other_blocks "
        "(their_other_blocks); uninstall one"
    )
    with pytest.raises(BlockError) as raised:
        make_block("se")
    assert str(raised.value) == words
    with pytest.warns(GraphSurgeryWarning) as told:
        make_block("simam")
    assert "se" not in registry.all_blocks()
    assert [str(each.message) for each in told] == [words]


def test_the_name_of_a_package_is_that_of_its_metadata(install, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for name in ("first", "second"):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: The-{name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\nblocks = blocks_{name}\n")
        (tmp_path / f"blocks_{name}.py").write_text(BLOCK.format(name="half"))
    with pytest.raises(BlockError, match=r"from The-first \(blocks_first\) and The-second \(blocks_second\);"):
        make_block("half")


def test_a_broken_package_of_detectors(
    install,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    (tmp_path / "their_detectors.py").write_text("1 / 0")
    ours = list(entry_points.entry_points(group="graphsurgery.detectors"))
    theirs = EntryPoint("their_detectors", "their_detectors", "graphsurgery.detectors")
    monkeypatch.setattr(entry_points, "entry_points", lambda group: [*ours, theirs])
    with pytest.warns(GraphSurgeryWarning, match="their_detectors cannot be loaded: ZeroDivisionError"):
        tree = recognise(GraphIndex(ModelFile.load(models.detector().SerializeToString())))
    assert tree.blocks


def test_the_command_line_says_it_in_a_line(
    install,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],  # type: ignore[no-untyped-def]
) -> None:
    install("their_broken_blocks", "print('half way'); 1 / 0")
    (tmp_path / "m.onnx").write_bytes(models.detector().SerializeToString())
    words = ["insert", str(tmp_path / "m.onnx"), "--after", "/model.2", "--no-verify", "-o", str(tmp_path / "o.onnx")]
    line = f"{BROKEN}ZeroDivisionError: division by zero\n"
    assert main([*words, "--module", "simam"]) == 0
    printed = capfd.readouterr()
    assert printed.err == f"half way\ngraphsurgery: warning: {line}"
    assert "half way" not in printed.out
    registry.forget()
    assert main([*words, "--module", "simam", "--force", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "half way\n")
    registry.forget()
    assert main([*words, "--module", "channelgate", "--force"]) == 2
    assert capfd.readouterr().err == (
        f"half way\ngraphsurgery: error: there is no block 'channelgate' among those that can be loaded; {line}"
    )


def test_a_block_that_fails_is_left_out_of_the_table(install) -> None:  # type: ignore[no-untyped-def]
    install("theirs", BLOCK.format(name="half").replace("return t.mul", "1 / 0 + t.mul"))
    known = [registry.block_class(name) for name in ("simam", "half", "se")]
    with pytest.warns(GraphSurgeryWarning, match=r"^the block half of theirs fails: ZeroDivisionError: division by"):
        rows = table(known)
    assert [row[0] for row in rows] == ["simam", "se"]


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("sinam", "simam or nam"),
        ("SimAM", "simam"),
        ("CBAM", "cbam"),
        ("ca", "coordatt"),
        ("CoordinateAttention", "coordatt"),
        ("SELayer", "se"),
        ("ContextBlock", "caa or gc or cot"),
        ("psa", "polarized or psablock"),
        ("SANet", "shuffle"),
        ("BoTNet", "mhsa"),
        ("double_attention", "a2"),
    ],
)
def test_the_nearest_names_by_name_title_and_initials(asked: str, near: str) -> None:
    with pytest.raises(BlockError) as raised:
        make_block(asked)
    assert str(raised.value) == f"there is no block {asked!r}; did you mean {near}?"
    assert raised.value.candidates == tuple(near.split(" or "))


def test_a_name_like_none_gets_all_names() -> None:
    with pytest.raises(BlockError, match=f"there are {', '.join(registry.all_blocks())}"):
        make_block("xyz")
