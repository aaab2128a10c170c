"""`graphsurgery tensorrt build`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import EnvironmentLacks, OutputError
from ..request import Argument
from .files import DASH, named, open_model, side_target
from .options import Ranges
from .output import Printer


def build(
    model: str | None = None,
    *,
    baseline: str | None = None,
    precision: str | None = None,
    shapes: Ranges = None,
    rounds: Annotated[int, Argument(minimum=2)] = 30,
    output: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    printer: Printer,
) -> None:
    """Build an engine, time it, and compare it with onnxruntime.

    Needs the tensorrt package, PyTorch with CUDA and a GPU; without them it ends with 3 and says what to run where they
    are. Ends with 1 if the engine cannot be built, or an output differs from onnxruntime's by more than 2% of its
    largest magnitude.

    \b
    graphsurgery tensorrt build yolov8n-simam.onnx --baseline yolov8n.onnx --precision fp16

    Parameters
    ----------
    baseline: FILE
        A model to time in turns with it.
    precision: P
        fp32, fp16, bf16 or int8, before TensorRT 11.  [default: what the types in the file ask for]
    rounds: N
        Rounds of ten runs to time.
    output: FILE
        Where the engine goes. None: nowhere.
    """
    from ..tensorrt.report import build_and_compare

    path, sizes = named(model, "TensorRT"), shapes or []
    target = _target(output, [path, *([baseline] if baseline is not None else [])], force=force)
    if dry_run:
        line = _line(path, precision, sizes)
        printer.json({"model": path, "engine": output, "command": line})
        printer.lines([f"nothing was built; it would be what this builds: {line}"])
        return
    before = Path(baseline) if baseline is not None else None
    try:
        report = build_and_compare(
            Path(path), baseline=before, precision=precision, shapes=sizes, rounds=rounds, engine=target
        )
    except EnvironmentLacks as error:
        raise type(error)(f"{error}; where it is there, run: {_line(path, precision, sizes)}") from None
    printer.report(report)
    if not report.agrees:
        raise typer.Exit(1)


def _target(output: str | None, inputs: Sequence[str], *, force: bool) -> Path | None:
    if output is None:
        return None
    if output == DASH:
        raise OutputError("an engine is not written to standard output; give -o FILE")
    return side_target(output, inputs, "engine", force=force).path


def _line(model: str, precision: str | None, shapes: list[str]) -> str:
    """The command that builds the model with TensorRT 10."""
    from ..tensorrt.commands import plan

    made = plan(open_model(model), model, precision=precision, shapes=shapes)
    return str(next(each for each in made.commands if each.purpose == "build"))
