"""Whether two sweeps of the same cells agree: what is slower or faster in both stands in the same order in both.

Two cells are compared where their intervals do not overlap in either report. Ends with 1 where two stand in another
order, or where one is slower in one report and faster in the other.

usage: python benchmarks/sweep_agreement.py FIRST/report.json SECOND/report.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

_TOLD = ("slower", "faster")
_Cell = tuple[str, str, str]
"""block, place and provider"""


def told(report: Mapping[str, Any]) -> dict[_Cell, Mapping[str, Any]]:
    """The latencies that are slower or faster."""
    return {
        (cell["module"], cell["place"], provider): figures
        for cell in report["cells"]
        for provider, figures in cell["latency"].items()
        if figures["verdict"] in _TOLD
    }


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[int, list[str]]:
    """How many pairs stand in an order in both reports, and what is said of those that disagree."""
    one, two = told(first), told(second)
    both = [cell for cell in one if cell in two]
    wrong = [f"{cell} is {one[cell]['verdict']} and {two[cell]['verdict']}" for cell in _turned(both, one, two)]
    compared = 0
    for a, b in combinations(both, 2):
        orders = [_order(found[a], found[b]) for found in (one, two)]
        if a[2] == b[2] and 0 not in orders:
            compared += 1
            if orders[0] != orders[1]:
                wrong.append(f"{a} and {b} change places")
    return compared, wrong


def _turned(cells: list[_Cell], one: Mapping[_Cell, Any], two: Mapping[_Cell, Any]) -> Iterator[_Cell]:
    return (cell for cell in cells if one[cell]["verdict"] != two[cell]["verdict"])


def _order(a: Mapping[str, Any], b: Mapping[str, Any]) -> int:
    """-1 or 1 where the intervals are apart, else 0."""
    return (a["low"] > b["high"]) - (a["high"] < b["low"])


def main() -> None:
    first, second = (json.loads(Path(path).read_text()) for path in sys.argv[1:])
    compared, wrong = compare(first, second)
    print(f"{len(told(first))} and {len(told(second))} cells are slower or faster; {compared} pairs stand in an order")
    print("\n".join(wrong) or "all of them agree")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
