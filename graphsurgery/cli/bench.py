"""`graphsurgery bench`."""

from __future__ import annotations

import re
from typing import Annotated

from ..errors import RequestError
from ..request import Argument
from .files import open_model
from .options import provider_list
from .output import Printer


def bench(
    model: str | None = None,
    *,
    baseline: str | None = None,
    providers: list[str] | None = None,
    shape: list[str] | None = None,
    batch: Annotated[int | None, Argument(minimum=1)] = None,
    rounds: Annotated[int, Argument(minimum=2)] = 30,
    warm_up: Annotated[int, Argument(minimum=0)] = 5,
    threads: Annotated[int, Argument(minimum=0)] = 0,
    custom_ops: list[str] | None = None,
    printer: Printer,
) -> None:
    """Time a model before and after its insertions.

    Runs the model, what it was before, and that once more as a control, in turns, and says whether they differ by more
    than the control does. Ends with 3 if onnxruntime or a provider that was asked for is missing.

    \b
    graphsurgery bench yolov8n-simam.onnx --baseline yolov8n.onnx --providers cpu,cuda

    Parameters
    ----------
    baseline: FILE
        What to compare with. Default: MODEL with its insertions taken out.
    providers: NAME[,NAME]
        Providers of onnxruntime to time on (cpu, cuda, tensorrt ...); one that is missing is an error. Default: cpu.
    shape: NAME=1x3x640x640
        Sizes of an input that the model leaves open. May be repeated. Default: batch 1, 640 x 640 pixels.
    batch: N
        The batch, where the model leaves it open.
    rounds: N
        Rounds that count.
    warm_up: N
        Rounds before, that do not.
    threads: N
        Threads on the CPU. 0: onnxruntime's choice.
    """
    from ..bench import bench as run

    names = provider_list(providers) or ["cpu"]
    opened = open_model(model)
    report = run(
        opened,
        open_model(baseline) if baseline is not None else None,
        providers=names,
        shapes=dict(map(input_shape, shape or ())),
        batch=batch,
        rounds=rounds,
        warm_up=warm_up,
        threads=threads,
        custom_ops=custom_ops or (),
    )
    printer.report(report)


def input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``NAME=1x3x640x640`` as a name and sizes."""
    name, equals, sizes = text.rpartition("=")
    if not equals or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
        raise RequestError(f"--shape takes NAME=1x3x640x640, not {text!r}", option="shape")
    return name, tuple(map(int, sizes.split("x")))
