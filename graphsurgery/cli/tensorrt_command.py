"""`graphsurgery tensorrt command`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import RequestError
from . import options


def command(
    model: options.Model = None,
    version: options.TensorRTVersion = "10",
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="P",
            help="fp32, fp16, bf16 or int8.  [default: what the types in the file ask for]",
            show_default=False,
        ),
    ] = None,
    dla: Annotated[
        int | None,
        typer.Option("--dla", min=0, metavar="CORE", help="Run on this DLA, the rest on the GPU.", show_default=False),
    ] = None,
    shapes: options.Shapes = None,
    strongly_typed: Annotated[
        bool, typer.Option("--strongly-typed", help="TensorRT 10: let the types in the file decide, as in 11.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Print the trtexec commands for a model.

    They build, time and profile it, with the flags that this version of TensorRT has. Where the types of the file
    decide and it has others than those asked for, the command that converts it comes first.

    \b
    graphsurgery tensorrt command yolov8n-simam.onnx --version 10 --precision fp16
    """
    from ..tensorrt.commands import plan
    from .files import is_standard, open_model
    from .output import Printer

    if model is None or is_standard(model):
        raise RequestError("trtexec reads a file: name the model")
    made = plan(
        open_model(model),
        model,
        version=version,
        precision=precision,
        dla=dla,
        shapes=shapes or [],
        strongly_typed=strongly_typed,
    )
    printer = Printer(as_json=as_json, quiet=quiet)
    printer.json({"model": model, "version": version, **made.to_json()})
    printer.lines(str(each) for each in made.commands)
    if not as_json:
        for note in made.notes:
            printer.note(note)
