"""`graphsurgery info`."""

from __future__ import annotations

from .files import open_model
from .output import Printer


def info(model: str | None = None, *, printer: Printer) -> None:
    """Describe a model on one screen.

    Its exporter, operator sets, element types, inputs and outputs, the blocks that are recognised in it, what was
    inserted, and what is unusual.

    \b
    graphsurgery info yolov8n-simam.onnx
    """
    from ..outline.info import info as describe

    printer.report(describe(open_model(model)))
