"""`python -m tests.exports [TEXT ...]`: make the exports whose "name variant" holds a TEXT (or all), and list them."""

from __future__ import annotations

import sys

import onnx

from tests.exports import MORE, NAMES, ZOO, export, seconds, variants

HEADER = ("name", "variant", "MB", "seconds", "nodes", "opset", "IR", "path")
ROW = "{:<20} {:<16} {:>7} {:>8} {:>6} {:>6} {:>3}  {}"


def main(wanted: list[str]) -> None:
    """Make and list, one line an export. MB counts the weights beside the file too."""
    print(ROW.format(*HEADER))
    for name in (*NAMES, *MORE, *ZOO):
        for variant in variants(name):
            if wanted and not any(text in f"{name} {variant}" for text in wanted):
                continue
            path = export(name, variant)
            model = onnx.load(path, load_external_data=False)
            opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
            size = sum(file.stat().st_size for file in path.parent.glob("*.onnx*")) / 1e6
            row = (name, variant, f"{size:.1f}", seconds(path), len(model.graph.node), opset, model.ir_version, path)
            print(ROW.format(*row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
