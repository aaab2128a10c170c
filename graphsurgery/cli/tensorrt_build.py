"""`graphsurgery tensorrt build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import EnvironmentLacks, OutputError, RequestError
from . import options

if TYPE_CHECKING:
    from pathlib import Path


def build(
    model: options.Model = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="FILE", help="A model to time in turns with it.", show_default=False),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="P",
            help="fp32, fp16, bf16 or int8, before TensorRT 11.  [default: what the types in the file ask for]",
            show_default=False,
        ),
    ] = None,
    shapes: options.Shapes = None,
    rounds: Annotated[int, typer.Option(min=2, metavar="N", help="Rounds of ten runs to time.")] = 30,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Where the engine goes. None: nowhere.", show_default=False
        ),
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build an engine, time it, and compare it with onnxruntime.

    Needs the tensorrt package, PyTorch with CUDA and a GPU; without them it ends with 3 and says what to run where they
    are. Ends with 1 if the engine cannot be built, or an output differs from onnxruntime's by more than 2% of its
    largest magnitude.

    \b
    graphsurgery tensorrt build yolov8n-simam.onnx --baseline yolov8n.onnx --precision fp16
    """
    from pathlib import Path

    from ..tensorrt.report import build_and_compare
    from .files import is_standard
    from .output import Printer

    if model is None or is_standard(model):
        raise RequestError("TensorRT reads a file: name the model")
    target = _target(output, force=force)
    if dry_run:
        printer = Printer(as_json=as_json, quiet=quiet)
        line = _line(model, precision, shapes or [])
        printer.json({"model": model, "engine": output, "command": line})
        printer.lines([f"nothing was built; it would be what this builds: {line}"])
        return
    try:
        report = build_and_compare(
            Path(model),
            baseline=Path(baseline) if baseline is not None else None,
            precision=precision,
            shapes=shapes or [],
            rounds=rounds,
            engine=target,
        )
    except EnvironmentLacks as error:
        raise type(error)(f"{error}; where it is there, run: {_line(model, precision, shapes or [])}") from None
    printer = Printer(as_json=as_json, quiet=quiet)
    printer.json(report.to_json())
    printer.lines(report.lines())
    if not report.agrees:
        raise typer.Exit(1)


def _target(output: str | None, *, force: bool) -> Path | None:
    from pathlib import Path

    from ..modelfile.saving import check_target

    if output is None:
        return None
    if output == "-":
        raise OutputError("an engine is not written to standard output; give -o FILE")
    check_target(Path(output), force=force)
    return Path(output)


def _line(model: str, precision: str | None, shapes: list[str]) -> str:
    """The command that builds the model with TensorRT 10."""
    from ..tensorrt.commands import plan
    from .files import open_model

    made = plan(open_model(model), model, precision=precision, shapes=shapes)
    return str(next(each for each in made.commands if each.purpose == "build"))
