"""Tables on terminals of every width: nothing that a user must type is cut."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphsurgery as gsx
from graphsurgery.blocks.registry import all_blocks
from graphsurgery.cli.main import main
from graphsurgery.cli.table import table
from tests.exports import export

WIDTHS = (80, 100, 160)


class Terminal(io.StringIO):
    """Standard output as a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, cli: Any) -> Callable[..., str]:
    """What a command prints on a terminal of a width."""

    def run(width: int, *arguments: str) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("NO_COLOR", "1")
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert main(list(arguments)) in (0, 1)
        return terminal.getvalue()

    return run


def columns(text: str) -> list[str]:
    """The text of each column of a table from top to bottom, without spaces: what was wrapped is joined again."""
    body = text.partition("\n\n")[0].splitlines()
    starts = [match.start() for match in re.finditer(r"\S+(?: \S+)*", body[0])]
    ends = [*starts[1:], None]
    cells = ["".join(line[a:b] for line in body) for a, b in zip(starts, ends, strict=True)]
    return ["".join(cell.split()) for cell in cells]


def check(text: str, width: int, values: list[str]) -> None:
    """No line is too long, nothing is shortened, and every value is there, in one line or in several."""
    assert max(map(len, text.partition("\n\n")[0].splitlines()[:-1])) <= width
    assert "…" not in text
    assert "..." not in text
    found = columns(text)
    assert [v for v in values if not any("".join(v.split()) in column for column in found)] == []


def test_the_check_sees_a_value_that_is_cut() -> None:
    cut = "name      read by\n/model.8  /model.9/cv1/conv/Co\n/model.9  /model.9/cv2"
    check(cut, 80, ["/model.8", "/model.9/cv2"])
    with pytest.raises(AssertionError):
        check(cut, 80, ["/model.9/cv1/conv/Conv"])
    check("name  by\n/mod  x\nel.8", 80, ["/model.8"])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("name", "variant"), [("yolov8n", "torchscript"), ("rtdetr-l", "torchscript")])
def test_sites(shown: Any, width: int, name: str, variant: str, folder: Path) -> None:
    path = folder / "model.onnx"
    gsx.insert(export(name, variant), "simam", after=["role:p3", "role:p4", "role:p5"]).save(path)
    rows = gsx.outline(path).rows()
    values = [text for row in rows for text in (row.name, row.path or "", *row.insertions, *row.readers)]
    check(shown(width, "sites", str(path)), width, values)


@pytest.mark.parametrize("width", WIDTHS)
def test_sites_of_one_selector(shown: Any, width: int) -> None:
    found = gsx.sites("detector.onnx", "C2f[*]")
    values = [text for site in found for text in (site.path or "", *site.consumers)]
    check(shown(width, "sites", "detector.onnx", "C2f[*]"), width, values)


@pytest.mark.parametrize("width", WIDTHS)
def test_remove_and_precision(shown: Any, width: int, folder: Path) -> None:
    path = folder / "inserted.onnx"
    first = gsx.insert("detector.onnx", "nam[channel+spatial]", after=["/model.4", "/model.15"])
    gsx.insert(first, "simam", after="role:p4", consumers="Concat").save(path)
    insertions = gsx.ModelFile.load(path).insertions()
    values = [text for each in insertions for text in (each.id, each.module, each.site.path or "")]
    check(shown(width, "remove", str(path)), width, values)
    nodes = [name for each in insertions for name in (each.id, *each.nodes)]
    _, _, below = shown(width, "tensorrt", "precision", str(path)).partition("\n\n")  # the summary
    check(below, width, nodes)


@pytest.mark.parametrize("width", WIDTHS)
def test_blocks(shown: Any, width: int) -> None:
    check(shown(width, "blocks"), width, list(all_blocks()))


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_no_table_is_not_cut_either(shown: Any, width: int, folder: Path) -> None:
    path = folder / "inserted.onnx"
    gsx.insert("detector.onnx", "simam", after="/model.8").save(path)
    commands: list[tuple[str, ...]] = [
        ("info", str(path)),
        ("diff", "detector.onnx", str(path)),
        ("tensorrt", "check", str(path), "--dla", "orin", "--precision", "fp16"),
        ("verify", str(path), "--providers", "cpu", "--seeds", "1"),
        ("bench", str(path), "--rounds", "2", "--warm-up", "0"),
    ]
    for command in commands:
        text = shown(width, *command)
        assert "…" not in text
        assert str(path.name) in text or "model.8" in text


# ---------------------------------------------------------------------- the rules of a table

HEADERS = ("name", "shape", "dtype", "read by")
ROWS = [
    ("/model.22/cv2.0", "[1, 64, 80, 80]", "float32", "/model.22/cv2.0/act/Mul, /model.22/cv3.0/conv/Conv"),
    ("C2f[0]", "[1, 8, 4, 4]", "float32", "Concat"),
]


def lines(room: int | None, optional: tuple[str, ...] = ("dtype", "shape")) -> list[str]:
    return list(table(HEADERS, ROWS, room=room, optional=optional))


def test_with_room_nothing_goes() -> None:
    assert lines(None) == lines(200)
    assert lines(None)[1] == "/model.22/cv2.0  [1, 64, 80, 80]  float32  " + ROWS[0][3]
    assert len(lines(None)) == 3


def test_columns_go_in_their_order_and_are_named() -> None:
    assert lines(90)[-1] == "(no room for dtype)"
    assert "[1, 64, 80, 80]" in lines(90)[1]
    assert lines(70)[-1] == "(no room for dtype, shape)"


def test_then_the_widest_column_is_wrapped_between_words() -> None:
    first, second = lines(45)[1:3]
    assert first.split() == ["/model.22/cv2.0", "/model.22/cv2.0/act/Mul,"]
    assert second.split() == ["/model.22/cv3.0/conv/Conv"]
    assert max(map(len, lines(45))) <= 45


def test_in_the_end_words_are_broken_and_nothing_is_lost() -> None:
    text = lines(24)
    assert max(map(len, text[:-1])) <= 24
    left = "".join(line[:11].strip() for line in text[1:3])
    assert left.startswith("/model.22/cv2.0")


def test_indentation_is_kept() -> None:
    assert list(table(("a", "b"), [("  .m.0", "x")], room=80))[1] == "  .m.0  x"


def test_without_rows_there_are_headers() -> None:
    assert list(table(("a", "b"), [], room=80)) == ["a  b"]


def test_names_of_inserted_nodes_are_whole_at_80_columns(shown: Callable[..., str], cli: Any) -> None:
    ended = cli("insert", "detector.onnx", "-m", "simam", "-a", "/model.8", "-o", "gated.onnx", "--no-verify")
    assert ended.code == 0, ended.err
    nodes = [each["node"] for each in json.loads(cli("tensorrt", "precision", "gated.onnx", "--json").text)["nodes"]]
    _, _, below = shown(80, "tensorrt", "precision", "gated.onnx").partition("\n\n")  # the summary
    table_lines = below.partition("(no room for gives, operator)")[0].splitlines()
    assert max(map(len, table_lines)) <= 80
    assert [line.split()[1] for line in table_lines[1:]] == nodes
