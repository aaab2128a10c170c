"""`graphsurgery blocks`."""

from __future__ import annotations

from typing import Annotated

import typer

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
    from .. import blockcards, userblock
    from ..blockfacts import in_order_of_demand
    from .output import Printer, progress

    printer = Printer(as_json=as_json)
    if name is not None:
        userblock.asked_for(name)
        card = blockcards.Card(name)
        if as_json:
            printer.json(card.to_json())
        else:
            printer.lines(card.lines())
        return
    with progress("trying every block", quiet=False):
        if as_json:
            printer.json({"blocks": [blockcards.Card(block.name).to_json() for block in in_order_of_demand()]})
        else:
            printer.table(blockcards.HEADERS, blockcards.table())
            printer.lines(["", *blockcards.LEGEND])
