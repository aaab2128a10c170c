"""What `graphsurgery rewrite` knows of the latency of templates: patterns/attention/gains.json.

The times are those of latency.py in results/; a time belongs to a form, and a form is told by its operators, which come
from exports made here.

usage: python benchmarks/gains.py [--exports FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import onnx

from benchmarks.lib import exports
from benchmarks.lib.blocks import CONFIGURATIONS, SIZES, Size, forms, label, sizes_of

_HERE = Path(__file__).resolve().parent
RESULTS = [_HERE / "results" / f"latency_cpu_{name}1_thread.json" for name in ("", "newer_")]
"""of all blocks, and of those that were measured later"""
GAINS = _HERE.parent / "patterns" / "attention" / "gains.json"
_EXPORTERS = ("torchscript", "dynamo")


def entries(table: dict[str, Any], folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(block, {"operators": {operator: count}, "gains": {size: how many times as fast the template is}}) for each form
    of each configuration: against the better of two exports of it.
    """
    for number, (name, _) in enumerate(CONFIGURATIONS):
        sizes = table.get(label(number))
        if sizes is None:
            continue
        smallest: Size = sizes_of(number, SIZES)[-1]
        for form in forms(number):
            file = exports.path(folder, number, smallest, 1, form, "torchscript")
            nodes = onnx.load(file, load_external_data=False).graph.node
            counts = Counter(node.op_type for node in nodes if node.op_type not in ("Constant", "Identity"))
            yield name, {"operators": dict(sorted(counts.items())), "gains": of_form(sizes, form)}


def of_form(sizes: dict[str, Any], form: str) -> dict[str, float]:
    """Size -> how many times as fast the template is as the better export of a form, from its rows in the table."""
    micros = {size: row["microseconds"] for size, row in sizes.items()}
    return {
        size: round(min(filter(None, (times.get(f"{form} {each}") for each in _EXPORTERS))) / times["template"], 3)
        for size, times in micros.items()
    }


def measured() -> dict[str, Any]:
    """Configuration -> size -> its row, from all files; see templates.compared."""
    files = (json.loads(file.read_text(encoding="utf-8")) for file in RESULTS)
    return {name: row for found in files for name, row in found["table"].items()}


def document(folder: Path) -> str:
    """The text of gains.json."""
    table = measured()
    numbers = [number for number in range(len(CONFIGURATIONS)) if label(number) in table]
    wanted = [(number, form, sizes_of(number, SIZES)[-1]) for number in numbers for form in forms(number)]
    exports.export(wanted, ("torchscript",), 1, folder, jobs=1)
    blocks: dict[str, list[dict[str, Any]]] = {}
    for block, entry in entries(table, folder):
        blocks.setdefault(block, []).append(entry)
    lines = (f"{json.dumps(block)}: {json.dumps(each)}" for block, each in sorted(blocks.items()))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exports", type=Path, help="folder where exports are kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.exports or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        GAINS.write_text(document(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
