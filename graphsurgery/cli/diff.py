"""`graphsurgery diff`."""

from __future__ import annotations

import typer

from ..errors import RequestError
from .files import DASH, open_model
from .output import Printer


def diff(first: str, second: str, *, exit_code: bool = False, printer: Printer) -> None:
    """Show what changed from one model to another, node by node. Weights are compared, too.

    \b
    graphsurgery diff yolov8n.onnx yolov8n-simam.onnx

    Parameters
    ----------
    first: A
        An ONNX file; '-': standard input.
    second: B
        An ONNX file; '-': standard input.
    exit_code:
        End with 1 if the models are not the same.
    """
    from ..diff.diff import diff as compare

    if first == second == DASH:
        raise RequestError("standard input can be only one of the two models")
    difference = compare(open_model(first), open_model(second), names=(first, second))
    printer.report(difference)
    if exit_code and not difference.empty:
        raise typer.Exit(1)
