"""`graphsurgery bench`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from ..errors import RequestError
from . import options


def bench(
    model: options.Model = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="FILE",
            help="What to compare with. Default: MODEL with its insertions taken out.",
            show_default=False,
        ),
    ] = None,
    providers: Annotated[
        list[str] | None,
        typer.Option(
            "--providers",
            metavar="NAME[,NAME]",
            help="Providers of onnxruntime to time on (cpu, cuda, tensorrt ...); one that is missing is an error. "
            "Default: cpu.",
            show_default=False,
        ),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="NAME=1x3x640x640",
            help="Sizes of an input that the model leaves open. May be repeated. Default: batch 1, 640 x 640 pixels.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", min=1, metavar="N", help="The batch, where the model leaves it open.", show_default=False
        ),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=2, metavar="N", help="Rounds that count.")] = 30,
    warm_up: Annotated[int, typer.Option("--warm-up", min=0, metavar="N", help="Rounds before, that do not.")] = 5,
    threads: Annotated[
        int, typer.Option("--threads", min=0, metavar="N", help="Threads on the CPU. 0: onnxruntime's choice.")
    ] = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time a model before and after its insertions.

    Runs the model, what it was before, and that once more as a control, in turns, and says whether they differ by more
    than the control does. Ends with 3 if onnxruntime or a provider that was asked for is missing.

    \b
    graphsurgery bench yolov8n-simam.onnx --baseline yolov8n.onnx --providers cpu,cuda
    """
    from ..bench import bench as run
    from .files import open_model
    from .output import Printer

    names = options.provider_list(providers) or ["cpu"]
    opened = open_model(model)
    report = run(
        opened,
        open_model(baseline) if baseline is not None else None,
        providers=names,
        shapes=dict(map(_shape, shapes or ())),
        batch=batch,
        rounds=rounds,
        warm_up=warm_up,
        threads=threads,
    )
    printer = Printer(as_json=as_json, quiet=quiet)
    printer.json(report.to_json())
    printer.lines(report.lines())


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``NAME=1x3x640x640`` as a name and sizes."""
    name, equals, sizes = text.rpartition("=")
    if not equals or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
        raise RequestError(f"--shape takes NAME=1x3x640x640, not {text!r}")
    return name, tuple(map(int, sizes.split("x")))
