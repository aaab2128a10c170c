"""`graphsurgery insert`."""

from __future__ import annotations

import typer

from ..request import Request
from .command import add
from .files import Output
from .inserting import Checking, run
from .output import Printer
from .several import InsertCommand


def insert(model: str | None = None, *, request: Request, output: Output, checking: Checking, printer: Printer) -> None:
    """Put an attention block after modules of a model, or before them.

    The result is compared with PyTorch before it gets its name, where torch and onnxruntime are installed.

    \b
    graphsurgery insert yolov8n.onnx --module simam --after /model.8 -o yolov8n-simam.onnx
    graphsurgery insert --module se --set reduction=8 --after /model.8 < in.onnx > out.onnx
    graphsurgery insert yolov8n.onnx --module se --after role:p4 --consumers Concat -o neck.onnx
    """
    run([request], model, output.destination(model, _read(request)), checking, printer)


def _read(request: Request) -> list[str]:
    """The files that the request reads beside the model."""
    if not request.weights:
        return []
    from ..weights import split  # the readers take 15 ms

    return [str(split(request.weights)[0])]


def add_to(app: typer.Typer) -> None:
    """Add the command, which says what to do instead where it is given several blocks."""
    add(app, insert, InsertCommand)
