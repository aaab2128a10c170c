"""`graphsurgery blocks`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import as_flag, spelled
from . import options


def blocks(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A block, to see all about it; also ./myblock.onnx.", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the blocks that can be inserted, or show one of them.

    \b
    graphsurgery blocks
    graphsurgery blocks ge
    """
    from .. import userblocks
    from ..cards.cards import HEADERS, LEGEND, Card, each_of, table
    from ..cards.facts import in_order_of_demand
    from .output import Printer, aside, progress

    printer = Printer(as_json=as_json)
    if name is not None:
        with aside():
            userblocks.asked_for(name)
            card = Card(name)
            data, lines = card.to_json(), list(card.lines(as_flag))
        printer.json(data)
        printer.lines(lines)
        return
    with progress("trying every block", quiet=False), aside():
        known = in_order_of_demand()
        cards = each_of(known, lambda block: Card(block.name).to_json()) if as_json else []
        rows = [] if as_json else table(known)
    printer.json({"blocks": cards})
    printer.table(HEADERS, rows)
    printer.lines(["", *(spelled(line, as_flag) for line in LEGEND)])
