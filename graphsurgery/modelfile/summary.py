"""A model in a line, and its insertions as a table: how a ModelFile is shown in a shell and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ..messages import html_table, shape_text
from .record import Insertion

_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))


def in_short(structure: onnx.ModelProto, opset: int | None, size: int) -> str:
    """``opset 17, IR version 8, 233 nodes, 12.8 MB``, for a file of ``size`` bytes."""
    count = len(structure.graph.node)
    nodes = "1 node" if count == 1 else f"{count:,} nodes"
    unit, bytes_in_it = next(each for each in _UNITS if size >= each[1])
    amount = f"{size / bytes_in_it:.1f}" if bytes_in_it > 1 else str(size)
    return f"opset {opset or 'unknown'}, IR version {structure.ir_version}, {nodes}, {amount} {unit}"


def as_html(name: str, line: str, insertions: Sequence[Insertion]) -> str:
    """A table with the name of the model and the line about it, and one with its insertions if it has some."""
    rows = [(i.id, i.module, i.site.tensor, shape_text(i.site.shape), i.site.dtype, i.parameters) for i in insertions]
    columns = ("insertion", "block", "reads", "shape", "type", "parameters")
    return html_table(("model", ""), [(name, line)]) + (html_table(columns, rows) if rows else "")
