"""The README: its table of blocks, its picture, and that links of all documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import graphsurgery as gsx
from tests.pages import DETECTOR, PAGES, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURE = ROOT / "docs" / "images" / "detector-simam.svg"
TITLE = "A small detector with SimAM"


def test_the_table_of_blocks_is_current() -> None:
    from graphsurgery.cards.listing import in_order_of_demand

    rows = [
        f"| `{block.name}` | {block.title} | {', '.join(f'`{variant}`' for variant in block.variants)} |"
        for block in in_order_of_demand()
    ]
    shown = README.partition("| block | name | variants |\n|---|---|---|\n")[2].partition("\n<!-- end -->")[0]
    assert shown.splitlines() == [row.replace("|  |", "| |") for row in rows]


def test_the_picture_is_what_sites_draws() -> None:
    drawn = gsx.outline(gsx.insert(DETECTOR, "simam", after="/model.8")).as_svg(title=TITLE)
    assert PICTURE.read_text(encoding="utf-8") == drawn


def test_the_shown_insertion_is_the_same_everywhere() -> None:
    pages = (README, (ROOT / "docs" / "start.md").read_text(encoding="utf-8"))
    shown = [re.findall(r"^model\.8\.simam: .*?^written to simam.onnx$", page, re.M | re.S) for page in pages]
    assert len(shown[0]) == 1
    assert shown[0] == shown[1]


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
