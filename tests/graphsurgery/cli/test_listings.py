"""`graphsurgery sites` and `graphsurgery blocks`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from graphsurgery.block import all_blocks


def test_sites(cli: Any) -> None:
    ended = cli("sites", "detector.onnx")
    lines = ended.text.splitlines()
    assert ended.code == 0
    assert lines[0].split() == ["module", "shape", "dtype", "stride", "consumers"]
    (whole,) = [line for line in lines if line.startswith("/model.8 ")]
    assert whole.split(maxsplit=1)[1].split("  ")[0] == "[1, 32, 10, 10]"
    assert whole.endswith("float32  32      /model.9/cv1/conv/Conv")
    inner = [line for line in lines if line.startswith("  /model.8/")]
    assert [line.split()[0] for line in inner] == ["/model.8/cv1", "/model.8/cv2"]
    assert lines[-1].endswith("more sites further down: --depth 3, or --all")


@pytest.mark.parametrize("depth", ["1", "2", "4", "9"])
def test_depth(cli: Any, depth: str) -> None:
    lines = cli("sites", "detector.onnx", "--depth", depth).text.splitlines()[1:]
    indents = {(len(line) - len(line.lstrip())) // 2 + 1 for line in lines if line.lstrip().startswith("/")}
    assert max(indents) == min(int(depth), 5)


def test_all_sites_and_json_agree(cli: Any) -> None:
    data = json.loads(cli("sites", "detector.onnx", "--json").out)
    lines = cli("sites", "detector.onnx", "--all").text.splitlines()
    assert data["model"] == "detector.onnx"
    assert [site["path"] for site in data["sites"]] == [line.split()[0] for line in lines[1:]]
    (site,) = [site for site in data["sites"] if site["path"] == "/model.4"]
    assert site == {
        "tensor": "/model.4/cv2/act/Mul_output_0",
        "shape": [1, 16, 40, 40],
        "dtype": "float32",
        "path": "/model.4",
        "type": None,
        "stride": 8,
        "consumers": ["/model.5/conv/Conv", "/model.14/Concat"],
        "graph_output": False,
        "warnings": [],
    }
    shallow = json.loads(cli("sites", "detector.onnx", "--json", "--depth", "1").out)
    assert 0 < len(shallow["sites"]) < len(data["sites"])


def test_what_a_selector_names(cli: Any) -> None:
    data = json.loads(cli("sites", "detector.onnx", "/model.{4,6}", "--json").out)
    assert [site["path"] for site in data["sites"]] == ["/model.4", "/model.6"]
    assert len(cli("sites", "detector.onnx", "/model.*/cv2/act").text.splitlines()) == 1 + 9
    assert "the nearest are" in cli("sites", "detector.onnx", "/model.80").sentence(2)


def test_a_model_without_module_paths(cli: Any, small_model: Callable[..., Path], folder: Path) -> None:
    path = small_model()
    path.write_bytes(path.read_bytes().replace(b"/a/Op", b"a-Op-").replace(b"/b/Op", b"b-Op-"))
    lines = cli("sites", "small.onnx").text.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["tensor:y", "tensor:z"]
    assert lines[2].endswith("(model output)")


def test_a_model_without_sites(cli: Any, small_model: Callable[..., Path]) -> None:
    small_model(kind=TensorProto.INT64)
    ended = cli("sites", "small.onnx")
    assert ended.code == 0
    assert "has no place for a block" in ended.text
    assert json.loads(cli("sites", "small.onnx", "--json").out)["sites"] == []


def test_blocks(cli: Any) -> None:
    ended = cli("blocks")
    assert ended.code == 0
    rows = ended.text.partition("\n\n")[0].splitlines()[1:]
    names = [line.split()[0] for line in rows]
    assert sorted(names) == list(all_blocks())
    first = ["simam", "se", "ge", "nam", "cbam", "eca", "coordatt", "ema", "gam"]
    assert names[: len(first)] == first
    (row,) = [line for line in rows if line.startswith("se ")]
    assert row.split()[1:5] == ["arXiv:1709.01507", "8,464", "6", "yes"]


@pytest.mark.parametrize("name", list(all_blocks()))
def test_card(cli: Any, name: str) -> None:
    block = all_blocks()[name]
    ended = cli("blocks", name)
    assert ended.code == 0
    for text in (block.title, block.paper, block.reference, block.formula, block.untrained, *block.variants.values()):
        assert text in ended.text
    data = json.loads(cli("blocks", name, "--json").out)
    assert list(data) == [
        "name",
        "title",
        "paper",
        "reference",
        "formula",
        "untrained",
        "variants",
        "settings",
        "weights",
        "aliases",
        "facts",
    ]
    assert [setting["name"] for setting in data["settings"]] == [setting.name for setting in block.settings]
    spelled = [f"{name}[{variant}]" for variant in block.variants] or [name]
    assert list(data["weights"]) == list(data["facts"]) == spelled


def test_card_of_one_variant(cli: Any) -> None:
    data = json.loads(cli("blocks", "nam[channel]", "--json").out)
    assert list(data["weights"]) == ["nam[channel]"]
    assert data["weights"]["nam[channel]"]["Channel_Att.bn2.weight"] == [256]


def test_weights_and_settings_of_se(cli: Any) -> None:
    text = cli("blocks", "se").text
    assert "    fc1.weight [16, 256, 1, 1]" in text
    assert "  reduction (whole number, at least 1, default 16): " in text


def test_unknown_block(cli: Any) -> None:
    assert cli("blocks", "sse").sentence(2).startswith("there is no block 'sse'")
    assert "has no variant" in cli("blocks", "ge[x]").sentence(2)
