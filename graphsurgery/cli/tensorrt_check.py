"""`graphsurgery tensorrt check`."""

from __future__ import annotations

import typer

from .files import open_model
from .output import Printer


def check(
    model: str | None = None,
    *,
    version: str = "10",
    dla: str | None = None,
    precision: str = "fp32",
    require_tensorrt: bool = False,
    printer: Printer,
) -> None:
    """Check every node of a model against what TensorRT takes.

    TensorRT need not be installed; where it is, with a GPU, the verdict of its own parser is shown too. Ends with 1 if
    the model would be refused, or computed otherwise.

    \b
    graphsurgery tensorrt check yolov8n-simam.onnx --version 8.6
    graphsurgery tensorrt check yolov8n-simam.onnx --dla orin --precision fp16

    Parameters
    ----------
    dla: NAME
        Also what runs on a DLA: orin.
    precision: P
        What the engine is to run in: fp32, fp16 or int8.
    require_tensorrt:
        End with 3 if TensorRT's own parser cannot be asked here.
    """
    from ..tensorrt.check import check as run
    from ..tensorrt.parser import verdict

    opened = open_model(model)
    opinion = verdict(opened, required=require_tensorrt)
    report = run(opened, version, dla=dla, precision=precision, parser=opinion)
    printer.report(report)
    if report.stops:
        raise typer.Exit(1)
