"""`graphsurgery sites`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx
import pytest
from onnx import TensorProto

import graphsurgery as gsx
from tests.models import model, node, value
from tests.recognition.randomise import randomise

SITE_KEYS = ("tensor", "shape", "dtype", "path", "type", "stride", "consumers", "graph_output", "warnings")


def test_the_blocks_of_a_model(cli: Any) -> None:
    ended = cli("sites", "detector.onnx")
    lines = ended.text.splitlines()
    assert ended.code == 0
    assert lines[0].split("  ")[0] == "block"
    assert lines[0].split() == ["block", "module", "shape", "stride", "role", "advisable", "read", "by"]
    (whole,) = [line for line in lines if line.startswith("C2f[1] ")]
    told = [cell for cell in whole.split("  ") if cell]
    assert [cell.strip() for cell in told] == [
        *("C2f[1]", "/model.4", "[1, 16, 40, 40]", "8", "backbone p3", "yes", "model.5, model.14")
    ]
    assert lines[-3].startswith("Detect[0] ")
    assert "no: not a map" in lines[-3]
    assert lines[-2] == "work: 34,963,200 MACs; largest activation [1, 8, 160, 160], 0.82 MB"
    assert lines[-1] == "advisable: 22 of 23 places; 60 parts further inside: --depth 2, or --all"
    assert all(len(line) <= 120 for line in lines)


def test_parts_of_blocks(cli: Any) -> None:
    lines = cli("sites", "detector.onnx", "--depth", "2").text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("C2f[3] "))
    assert [line.split()[:2] for line in lines[at + 1 : at + 4]] == [
        [".cv1", "(Conv)"],
        [".m.0", "(Bottleneck)"],
        [".cv2", "(Conv)"],
    ]


@pytest.mark.parametrize(("depth", "levels"), [("1", 1), ("2", 2), ("3", 3), ("9", 3)])
def test_depth(cli: Any, depth: str, levels: int) -> None:
    lines = cli("sites", "detector.onnx", "--depth", depth).text.splitlines()[1:-2]
    indents = {(len(line) - len(line.lstrip())) // 2 + 1 for line in lines}
    assert max(indents) == levels


def test_all_sites_and_json_agree(cli: Any) -> None:
    data = json.loads(cli("sites", "detector.onnx", "--json").out)
    lines = cli("sites", "detector.onnx", "--all").text.splitlines()[1:-2]
    assert data["model"] == "detector.onnx"
    assert len(data["sites"]) == len([line for line in lines if "no: not a map" not in line])
    (site,) = [site for site in data["sites"] if site["selector"] == "C2f[1]"]
    assert site == {
        "tensor": "/model.4/cv2/act/Mul_output_0",
        "shape": [1, 16, 40, 40],
        "dtype": "float32",
        "path": "/model.4",
        "type": "C2f",
        "stride": 8,
        "consumers": ["/model.5/conv/Conv", "/model.14/Concat"],
        "graph_output": False,
        "warnings": [],
        "selector": "C2f[1]",
        "index": 1,
        "depth": 1,
        "role": "backbone",
        "roles": ["p3", "stage-ends"],
        "readers": ["model.5", "model.14"],
        "insertions": [],
        "macs": 2867200,
        "advisable": True,
        "reason": None,
    }
    assert data["macs"] == sum(block["macs"] for block in data["blocks"])
    assert data["largest_activation"] == {"shape": [1, 8, 160, 160], "bytes": 4 * 8 * 160 * 160}
    assert [block["selector"] for block in data["blocks"]] == [line.split()[0] for line in lines if line[0] != " "]
    assert data["blocks"][-1]["type"] == "Detect"
    shallow = json.loads(cli("sites", "detector.onnx", "--json", "--depth", "1").out)
    assert {site["depth"] for site in shallow["sites"]} == {1}


def test_every_site_can_be_inserted_at_by_its_selector(cli: Any) -> None:
    data = json.loads(cli("sites", "detector.onnx", "--json").out)
    for site in data["sites"][::7]:
        (found,) = json.loads(cli("sites", "detector.onnx", site["selector"], "--json").out)["sites"]
        assert found["tensor"] == site["tensor"], site["selector"]


def test_what_a_selector_names(cli: Any) -> None:
    data = json.loads(cli("sites", "detector.onnx", "/model.{4,6}", "--json").out)
    assert [site["path"] for site in data["sites"]] == ["/model.4", "/model.6"]
    assert all(set(SITE_KEYS) <= set(site) and site["advisable"] for site in data["sites"])
    assert len(cli("sites", "detector.onnx", "/model.*/cv2/act").text.splitlines()) == 1 + 9
    assert "the nearest are" in cli("sites", "detector.onnx", "/model.80").sentence(2)


def test_the_reason_why_a_place_is_not_advisable(cli: Any) -> None:
    lines = cli("sites", "detector.onnx", "/model.8/cv2/conv").text.splitlines()
    assert lines[-1].startswith("not advisable: /model.8/cv2/conv: this is between a convolution and its activation")
    assert "use /model.8/cv2 to insert" in lines[-1]
    (site,) = json.loads(cli("sites", "detector.onnx", "/model.8/cv2/conv", "--json").out)["sites"]
    assert not site["advisable"]
    assert site["reason"] in lines[-1]


def test_names_that_tell_nothing(cli: Any, folder: Path) -> None:
    onnx.save(randomise(onnx.load(folder / "detector.onnx")).model, folder / "anonymous.onnx")
    lines = cli("sites", "anonymous.onnx").text.splitlines()
    (whole,) = [line for line in lines if line.startswith("C2f[1] ")]
    assert "  recovered  " in whole
    assert whole.endswith("Conv[11], Concat[1]")
    named = cli("sites", "detector.onnx").text.splitlines()
    assert lines[-1] == named[-1]


def test_inserted_blocks_are_told(cli: Any, folder: Path) -> None:
    gsx.insert(folder / "detector.onnx", "simam", after="C2f[3]").save(folder / "with.onnx")
    lines = cli("sites", "with.onnx").text.splitlines()
    assert "inserted" in lines[0]
    (whole,) = [line for line in lines if line.startswith("C2f[3] ")]
    assert "  model.8.simam  " in whole


def test_a_model_without_module_paths_and_blocks(cli: Any, small_model: Callable[..., Path]) -> None:
    path = small_model()
    path.write_bytes(path.read_bytes().replace(b"/a/Op", b"a-Op-").replace(b"/b/Op", b"b-Op-"))
    lines = cli("sites", "small.onnx").text.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["tensor:y", "tensor:z"]
    assert lines[-1] == "work: 0 MACs; largest activation [1, 8, 4, 4], 0.00051 MB"
    assert lines[2].endswith("(model output)")


def test_a_model_without_blocks_is_listed_by_module(cli: Any, small_model: Callable[..., Path]) -> None:
    small_model()
    lines = cli("sites", "small.onnx").text.splitlines()
    assert lines[0].split() == ["module", "shape", "dtype", "stride", "consumers"]
    assert [line.split()[0] for line in lines[1:-1]] == ["/a", "/b"]


def test_a_model_without_sites(cli: Any, small_model: Callable[..., Path]) -> None:
    small_model(kind=TensorProto.INT64)
    ended = cli("sites", "small.onnx")
    assert ended.code == 0
    assert "has no place for a block" in ended.text
    assert json.loads(cli("sites", "small.onnx", "--json").out)["sites"] == []


@pytest.mark.parametrize("kind", ["cycle", "apart", "empty", "matrix"])
def test_odd_graphs(cli: Any, folder: Path, kind: str) -> None:
    shape = (4, 4) if kind == "matrix" else (1, 4, 8, 8)
    nodes = {
        "cycle": [node("Add", ["x", "c"], ["a"]), node("Relu", ["a"], ["c"]), node("Relu", ["x"], ["y"])],
        "apart": [node("Relu", ["x"], ["y"]), node("Relu", ["u"], ["v"])],
        "empty": [],
        "matrix": [node("MatMul", ["x", "x"], ["y"])],
    }[kind]
    inputs, outputs = ("x", "u") if kind == "apart" else ("x",), ("y", "v") if kind == "apart" else ("y",)
    built = model(nodes, [value(n, shape) for n in inputs], [value(n, shape) for n in outputs])
    (folder / "odd.onnx").write_bytes(built.SerializeToString())
    ended = cli("sites", "odd.onnx")
    assert ended.code == 0
    assert ended.err.count("\n") == ended.err.count("no runtime can run it") == (kind in ("cycle", "empty"))
    assert ("tensor:y" in ended.text) == (kind in ("cycle", "apart"))


# ---------------------------------------------------------------------- pictures


@pytest.mark.parametrize("suffix", ["svg", "html", "SVG"])
def test_picture(cli: Any, folder: Path, suffix: str) -> None:
    ended = cli("sites", "detector.onnx", "--picture", f"picture.{suffix}")
    assert ended.code == 0
    assert ended.text.splitlines()[-1] == f"picture: picture.{suffix}"
    text = (folder / f"picture.{suffix}").read_text()
    assert text.startswith("<!DOCTYPE html>" if suffix == "html" else "<svg ")
    assert text.count('<g class="box">') == 23 + 2
    if suffix != "html":
        ElementTree.fromstring(text)


@pytest.mark.parametrize(
    ("suffix", "magic"),
    [("png", b"\x89PNG\r\n\x1a\n"), ("pdf", b"%PDF-"), ("PNG", b"\x89PNG")],
    ids=["png", "pdf", "PNG"],
)
def test_a_picture_as_png_and_as_pdf(cli: Any, folder: Path, suffix: str, magic: bytes) -> None:
    ended = cli("sites", "detector.onnx", "--picture", f"picture.{suffix}", "--title", "a title")
    assert ended.code == 0
    data = (folder / f"picture.{suffix}").read_bytes()
    assert data.startswith(magic)
    assert len(data) > 10_000


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_a_picture_without_its_library(cli: Any, folder: Path, unchanged: Any, suffix: str) -> None:
    with unchanged(), pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "cairosvg", None)
        sentence = cli("sites", "detector.onnx", "--picture", f"a.{suffix}").sentence(3)
    assert f"a picture as {suffix.upper()} needs the extra pictures" in sentence
    assert 'pip install "graphsurgery[pictures]"' in sentence


def test_the_title_of_a_picture(cli: Any, folder: Path) -> None:
    assert cli("sites", "detector.onnx", "--picture", "a.html", "--title", "SE <b>& SimAM").code == 0
    assert (folder / "a.html").read_text().count("SE &lt;b&gt;&amp; SimAM") == 3, "of the page, the drawing, and in it"
    assert "--title is the title of a picture; add --picture" in cli("sites", "detector.onnx", "--title", "x").sentence(
        2
    )


@pytest.mark.parametrize("words", [(), ("--depth", "2"), ("--all",)])
def test_the_depth_of_a_picture(cli: Any, folder: Path, words: tuple[str, ...]) -> None:
    """It has the rows of the table, an input and an output."""
    lines = cli("sites", "detector.onnx", "--picture", "a.svg", *words).text.splitlines()
    rows = len(lines) - 4
    assert (folder / "a.svg").read_text().count('<g class="box">') == rows + 2


def test_the_depth_of_a_picture_beside_json(cli: Any, folder: Path) -> None:
    assert cli("sites", "detector.onnx", "--picture", "a.svg", "--json").code == 0
    assert (folder / "a.svg").read_text().count('<g class="box">') == 23 + 2


def test_what_is_inserted_inside_of_a_block(cli: Any, folder: Path) -> None:
    """In the table below its block, in the picture in it, however few levels are shown."""
    assert cli("insert", "detector.onnx", "-m", "se", "-a", "C2f[3].m.0", "-o", "inner.onnx").code == 0
    lines = cli("sites", "inner.onnx", "--picture", "inner.svg").text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("C2f[3] "))
    assert "se" not in lines[at]
    assert lines[at + 1].startswith("  .m.0 (Bottleneck) ")
    assert " model.8.m.0.se " in lines[at + 1]
    assert not lines[at + 2].startswith(" ")
    assert lines[-2].startswith("advisable: 23 of 24 places; 59 parts further inside")
    assert "model.8.m.0.se" in (folder / "inner.svg").read_text()


def test_picture_and_json(cli: Any, folder: Path) -> None:
    data = json.loads(cli("sites", "detector.onnx", "--picture", "a.svg", "--json").out)
    assert data["picture"] == "a.svg"
    assert (folder / "a.svg").is_file()
    assert json.loads(cli("sites", "detector.onnx", "--json").out)["picture"] is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("picture.jpg", "a picture is an .svg, .html, .png or .pdf file, not 'picture.jpg'"),
        ("picture", "a picture is an .svg, .html, .png or .pdf file"),
        (".svg", "a picture is an .svg, .html, .png or .pdf file"),
        ("nowhere/picture.svg", "there is no folder nowhere"),
        ("there.svg", "exists already; use --force"),
        ("folder.svg", "is a directory"),
    ],
)
def test_pictures_that_must_not_be_written(cli: Any, folder: Path, unchanged: Any, name: str, said: str) -> None:
    (folder / "there.svg").write_text("something")
    (folder / "folder.svg").mkdir()
    with unchanged():
        assert said in cli("sites", "detector.onnx", "--picture", name).sentence(2)


def test_a_picture_does_not_replace_the_model(cli: Any, folder: Path, unchanged: Any) -> None:
    os.rename(folder / "detector.onnx", folder / "detector.svg")
    with unchanged():
        assert "is the model itself" in cli("sites", "detector.svg", "--picture", "detector.svg", "--force").sentence(2)


def test_an_existing_picture_with_force(cli: Any, folder: Path) -> None:
    (folder / "there.svg").write_text("something")
    assert cli("sites", "detector.onnx", "--picture", "there.svg", "--force").code == 0
    assert (folder / "there.svg").read_text().startswith("<svg ")
    assert not list(folder.glob(".graphsurgery*"))


def test_nothing_to_draw(cli: Any, folder: Path, small_model: Callable[..., Path], unchanged: Any) -> None:
    small_model(kind=TensorProto.INT64)
    with unchanged():
        assert "cannot be drawn" in cli("sites", "small.onnx", "--picture", "a.svg").sentence(2)
