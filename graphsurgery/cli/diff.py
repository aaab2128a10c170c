"""`graphsurgery diff`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import RequestError
from . import options


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="An ONNX file; '-': standard input.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="An ONNX file; '-': standard input.", show_default=False)],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 1 if the models are not the same.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what changed from one model to another, node by node. Weights are compared, too.

    \b
    graphsurgery diff yolov8n.onnx yolov8n-simam.onnx
    """
    from ..diff.diff import diff as compare
    from .files import DASH, open_model
    from .output import Printer

    if first == second == DASH:
        raise RequestError("standard input can be only one of the two models")
    difference = compare(open_model(first), open_model(second), names=(first, second))
    printer = Printer(as_json=as_json, quiet=quiet)
    printer.json(difference.to_json())
    printer.lines(difference.lines())
    if exit_code and not difference.empty:
        raise typer.Exit(1)
