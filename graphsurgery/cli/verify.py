"""`graphsurgery verify`."""

from __future__ import annotations

from typing import Annotated

from ..errors import ParityFailed
from ..request import Argument
from .files import open_model
from .inserting import announce
from .options import provider_list
from .output import Printer, aside


def verify(
    model: str | None = None,
    *,
    providers: list[str] | None = None,
    images: str | None = None,
    seeds: Annotated[int, Argument(minimum=1)] = 3,
    original: str | None = None,
    ignore_rest: bool = False,
    trust: list[str] | None = None,
    memory: Annotated[int | None, Argument(minimum=1)] = None,
    verbose: bool = False,
    printer: Printer,
) -> None:
    """Compare every inserted block with its PyTorch module.

    Each is cut out as it stands in the file; one that came from an ONNX file is compared with that. Ends with 1 if one
    of them does not agree, is not connected as it was inserted, or if the rest of the model is not what it was; with 3
    if torch, onnxruntime or a provider that was asked for is missing.

    \b
    graphsurgery verify yolov8n-simam.onnx --providers cpu,cuda --original yolov8n.onnx

    Parameters
    ----------
    seeds: N
        Random inputs for each magnitude.
    original: FILE
        The model before the insertions, to compare the rest with.
    ignore_rest:
        Judge the blocks alone: an optimiser rewrote the rest of the model, say.
    trust: PKG.MOD:CLASS
        A PyTorch module of your own that may be imported to compare with. May be repeated.
    """
    from pathlib import Path

    from ..verification import MEMORY
    from ..verification import verify as compare

    names, opened = provider_list(providers), open_model(model)
    before = Path(original) if original is not None else None
    announce(opened.insertions(), printer)
    with aside():
        report = compare(
            opened,
            providers=names,
            images=images,
            seeds=seeds,
            original=before,
            ignore_rest=ignore_rest,
            trust=trust or (),
            memory=memory or MEMORY,
        )
    failed = None
    try:
        report.require()
    except ParityFailed as error:
        failed = error
    printer.report(report, failed)
    if verbose:
        printer.lines(f"{each.id}: compared on {', '.join(each.inputs)}" for each in report.insertions)
    if failed:
        raise failed
