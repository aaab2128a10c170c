"""Tables of the blocks in other documents: written from the blocks, between markers that name them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..feature_map import FeatureMap
from .facts import Facts
from .listing import in_order_of_demand, variants

_PLACE = re.compile(r"(?P<start><!-- blocks: (?P<name>[\w-]+) [^\n]*-->\n)(?P<table>.*?)(?P<end><!-- end -->)", re.S)
_DLA_SITE = FeatureMap(128, 20, 20, batch=1)


def write(path: Path) -> None:
    """Bring the tables of a document up to date.

    Parameters
    ----------
    path:
        A Markdown file in which ``<!-- blocks: NAME ... -->`` and ``<!-- end -->`` stand around each table.
    """
    path.write_text(current(path.read_text(encoding="utf-8")), encoding="utf-8")


def current(document: str) -> str:
    """The text of a document with its tables as they ought to be."""
    return _PLACE.sub(lambda place: f"{place['start']}{_TABLES[place['name']]()}\n{place['end']}", document)


def _names() -> str:
    return "\n".join(["| block | name | variants |", "|---|---|---|", *_name_rows()])


def _name_rows() -> Iterator[str]:
    for block in in_order_of_demand():
        spelled = ", ".join(f"`{variant}`" for variant in block.variants)
        yield f"| `{block.name}` | {block.title} | {f'{spelled} ' if spelled else ''}|"


def _left_by_a_dla() -> str:
    """Operators that go to the GPU -> the blocks, each as it is written for a DLA on 128 x 20 x 20."""
    rows: dict[str, list[str]] = {}
    for kind in sorted(in_order_of_demand(), key=lambda kind: kind.name):
        for block in variants(kind):
            operators = sorted(Facts(block).left_by_a_dla(_DLA_SITE))
            rows.setdefault(", ".join(operators) or "nothing", []).append(block.spelled)
    in_order = sorted(rows.items(), key=lambda row: (row[0] != "nothing", row[0]))
    cells = [f"| {operators} | {', '.join(blocks)} |" for operators, blocks in in_order]
    return "\n".join(["| falls back | blocks |", "|---|---|", *cells])


_TABLES = {"names": _names, "dla": _left_by_a_dla}
