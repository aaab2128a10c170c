"""`graphsurgery blocks`."""

from __future__ import annotations

from ..errors import as_flag
from .output import Printer, aside


def blocks(name: str | None = None, *, printer: Printer) -> None:
    """List the blocks that can be inserted, or show one of them.

    \b
    graphsurgery blocks
    graphsurgery blocks ge

    Parameters
    ----------
    name: NAME
        A block, to see all about it; also ./myblock.onnx.
    """
    from ..cards.cards import HEADERS, LEGEND, block, blocks, table

    if name is not None:
        with aside():
            card = block(name)
            data, lines = card.to_json(), list(card.lines(as_flag))
        printer.json(data)
        printer.lines(lines)
        return
    with aside():
        data = {"blocks": [each.to_json() for each in blocks()] if printer.as_json else []}
        rows = [] if printer.as_json else table()
    printer.json(data)
    printer.table(HEADERS, rows, optional=("largest", "MACs", "nodes", "parameters", "paper"))
    printer.lines(["", *LEGEND])
