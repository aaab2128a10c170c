"""`graphsurgery info`."""

from __future__ import annotations

from . import options


def info(
    model: options.Model = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Describe a model on one screen.

    Its exporter, operator sets, element types, inputs and outputs, the blocks that are recognised in it, what was
    inserted, and what is unusual.

    \b
    graphsurgery info yolov8n-simam.onnx
    """
    from ..outline.info import info as describe
    from .files import open_model
    from .output import Printer

    found = describe(open_model(model))
    printer = Printer(as_json=as_json, quiet=quiet)
    printer.json(found.to_json())
    printer.lines(found.lines())
