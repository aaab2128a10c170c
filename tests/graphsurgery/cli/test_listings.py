"""`graphsurgery blocks`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graphsurgery.blocks.registry import all_blocks


def test_blocks(cli: Any) -> None:
    ended = cli("blocks")
    assert ended.code == 0
    assert max(map(len, ended.text.splitlines())) <= 120
    rows = ended.text.partition("\n\n")[0].splitlines()[1:]
    names = [line.split()[0] for line in rows]
    assert sorted(names) == list(all_blocks())
    first = ["simam", "se", "ge", "nam", "cbam", "eca", "coordatt", "ema", "gam"]
    assert names[: len(first)] == first
    (row,) = [line for line in rows if line.startswith("se ")]
    assert row.split()[1:7] == ["arXiv:1709.01507", "8,464", "8.19k", "0.00102", "6", "yes"]


@pytest.mark.parametrize("name", list(all_blocks()))
def test_card(cli: Any, name: str) -> None:
    block = all_blocks()[name]
    ended = cli("blocks", name)
    assert ended.code == 0
    assert max(map(len, ended.text.splitlines())) <= 120
    shown = " ".join(ended.text.split())
    texts = (block.title, block.paper, block.reference, block.formula, block.untrained)
    for text in (*texts, *block.remarks, *block.variants.values()):
        assert text.replace("; ", " ") in shown.replace("; ", " ")
    data = json.loads(cli("blocks", name, "--json").out)
    assert list(data) == [
        "name",
        "title",
        "paper",
        "reference",
        "formula",
        "untrained",
        "remarks",
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
