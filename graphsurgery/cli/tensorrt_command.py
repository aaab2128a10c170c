"""`graphsurgery tensorrt command`."""

from __future__ import annotations

from typing import Annotated

from ..request import Argument
from .files import named, open_model
from .options import Ranges
from .output import Printer


def command(
    model: str | None = None,
    *,
    version: str = "10",
    precision: str | None = None,
    dla: Annotated[int | None, Argument(minimum=0)] = None,
    shapes: Ranges = None,
    strongly_typed: bool = False,
    printer: Printer,
) -> None:
    """Print the trtexec commands for a model.

    They build, time and profile it, with the flags that this version of TensorRT has. Where the types of the file
    decide and it has others than those asked for, the command that converts it comes first.

    \b
    graphsurgery tensorrt command yolov8n-simam.onnx --version 10 --precision fp16

    Parameters
    ----------
    precision: P
        fp32, fp16, bf16 or int8.  [default: what the types in the file ask for]
    dla: CORE
        Run on this DLA, the rest on the GPU.
    strongly_typed:
        TensorRT 10: let the types in the file decide, as in 11.
    """
    from ..tensorrt.commands import plan

    path = named(model, "trtexec")
    made = plan(
        open_model(path),
        path,
        version=version,
        precision=precision,
        dla=dla,
        shapes=shapes or [],
        strongly_typed=strongly_typed,
    )
    printer.json({"model": path, "version": version, **made.to_json()})
    printer.lines(str(each) for each in made.commands)
    if not printer.as_json:
        for note in made.notes:
            printer.note(note)
