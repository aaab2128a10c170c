"""`graphsurgery tensorrt check`."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options


def check(
    model: options.Model = None,
    version: options.TensorRTVersion = "10",
    dla: Annotated[
        str | None,
        typer.Option("--dla", metavar="NAME", help="Also what runs on a DLA: orin.", show_default=False),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", metavar="P", help="What the engine is to run in: fp32, fp16 or int8.")
    ] = "fp32",
    require_tensorrt: Annotated[
        bool, typer.Option("--require-tensorrt", help="End with 3 if TensorRT's own parser cannot be asked here.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check every node of a model against what TensorRT takes.

    TensorRT need not be installed; where it is, with a GPU, the verdict of its own parser is shown too. Ends with 1 if
    the model would be refused, or computed otherwise.

    \b
    graphsurgery tensorrt check yolov8n-simam.onnx --version 8.6
    graphsurgery tensorrt check yolov8n-simam.onnx --dla orin --precision fp16
    """
    from ..tensorrt.check import check as run
    from ..tensorrt.parser import verdict
    from .files import open_model
    from .output import Printer

    opened = open_model(model)
    opinion = verdict(opened, required=require_tensorrt)
    report = run(opened, version, dla=dla, precision=precision, parser=opinion)
    printer = Printer(as_json=as_json, quiet=quiet)
    printer.json(report.to_json())
    printer.lines(report.lines())
    if report.stops:
        raise typer.Exit(1)
