"""What `graphsurgery rewrite` knows of the latency of templates: patterns/attention/gains.json, from the measurements
of latency.py in results/.

usage: python benchmarks/gains.py [RESULTS.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_RESULTS = _HERE / "results" / "latency_cpu_1_thread.json"
_GAINS = _HERE.parent / "patterns" / "attention" / "gains.json"


def gains(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    """Block -> size -> how many times as fast its template is as the best export of either form of its module; of
    several settings, with the ones that gain least.
    """
    found: dict[str, dict[str, float]] = {}
    for label, sizes in table.items():
        block = found.setdefault(label.partition(" ")[0], {})
        for size, row in sizes.items():
            ratio = min(row[form]["ratio"] for form in ("published", "own") if form in row)
            block[size] = min(block.get(size, ratio), round(ratio, 3))
    return found


def document(results: Path) -> str:
    """The text of gains.json."""
    table = json.loads(results.read_text(encoding="utf-8"))["table"]
    lines = (f"{json.dumps(block)}: {json.dumps(sizes)}" for block, sizes in sorted(gains(table).items()))
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    _GAINS.write_text(document(Path(sys.argv[1]) if sys.argv[1:] else _RESULTS), encoding="utf-8")
