"""`graphsurgery blocks`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import as_flag
from . import options


def blocks(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A block, to see all about it; also ./myblock.onnx.", show_default=False),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List the blocks that can be inserted, or show one of them.

    \b
    graphsurgery blocks
    graphsurgery blocks ge
    """
    from ..cards.cards import HEADERS, LEGEND, block, blocks, table
    from .output import Printer, aside

    printer = Printer(as_json=as_json, quiet=quiet)
    with aside():
        if name is not None:
            card = block(name)
            data, lines = card.to_json(), list(card.lines(as_flag))
        else:
            data = {"blocks": [each.to_json() for each in blocks()] if as_json else []}
            rows = [] if as_json else table()
    printer.json(data)
    if name is not None:
        printer.lines(lines)
        return
    printer.table(HEADERS, rows, optional=("nodes", "parameters", "paper"))
    printer.lines(["", *LEGEND])
