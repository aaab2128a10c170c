"""`graphsurgery verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ..errors import ParityFailed, RequestError, option
from ..request import Argument
from .files import open_model
from .options import KnownShapes, provider_list
from .output import Printer, aside

if TYPE_CHECKING:
    from ..torch.parity import WholeReport
    from ..verification import Report


def verify(
    model: str | None = None,
    *,
    providers: list[str] | None = None,
    images: str | None = None,
    seeds: Annotated[int, Argument(minimum=1)] = 3,
    original: str | None = None,
    ignore_rest: bool = False,
    ultralytics: str | None = None,
    torch: str | None = None,
    trust: list[str] | None = None,
    memory: Annotated[int | None, Argument(minimum=1)] = None,
    custom_ops: list[str] | None = None,
    verbose: bool = False,
    known: KnownShapes,
    printer: Printer,
) -> None:
    """Compare the inserted blocks with PyTorch, or the whole model.

    Each block is cut out as it stands in the file; one that came from an ONNX file is compared with that. Ends with 1
    if one of them does not agree, is not connected as it was inserted, or if the rest of the model is not what it was;
    with 3 if torch, onnxruntime or a provider that was asked for is missing.

    With --ultralytics or --torch the whole model is compared with the whole module that it was made from, attached
    blocks included: boxes in pixels and scores apart. Where they differ, the first module that does is named.

    \b
    graphsurgery verify yolov8n-simam.onnx --providers cpu,cuda --original yolov8n.onnx
    graphsurgery verify yolov8n-se.onnx --ultralytics best.pt --images photos/

    Parameters
    ----------
    seeds: N
        Random inputs for each magnitude; with ``ultralytics=`` or ``torch=`` and without ``images=``, random images.
    original: FILE
        The model before the insertions, to compare the rest with.
    ignore_rest:
        Judge the blocks alone: an optimiser rewrote the rest of the model, say.
    ultralytics: FILE
        A checkpoint of Ultralytics, such as best.pt, to compare the whole model with. Loading a pickle executes it:
        only classes of torch, Ultralytics and graphsurgery are loaded from it, unless ``trust=`` names the checkpoint.
    torch: PKG.MOD:FACTORY
        A function that gives the PyTorch module to compare the whole model with. It is imported and called.
    trust: PKG.MOD:CLASS
        A PyTorch module of your own that may be imported to compare with, or the checkpoint, to load all that is in it.
        May be repeated.
    """
    from ..runtime.custom_ops import registered

    if ultralytics is not None or torch is not None:
        given = {"original": original is not None, "ignore_rest": ignore_rest, "memory": memory is not None}
        given["shapes"] = bool(known.shapes)
        if ultralytics is not None and torch is not None:
            raise RequestError(f"give {option('ultralytics')} or {option('torch')}, not both", option="torch")
        if extra := [name for name, is_given in given.items() if is_given]:
            raise RequestError(f"{option(extra[0])} is for comparing blocks; here the whole model is compared")
        with registered(custom_ops or ()):
            _compare_whole(model, ultralytics, torch, provider_list(providers), images, seeds, trust or [], printer)
        return
    from pathlib import Path

    from ..insertion.cost import cost_of
    from ..verification import MEMORY
    from ..verification import verify as compare

    names, opened = provider_list(providers), open_model(model)
    before = Path(original) if original is not None else None
    for insertion in opened.insertions():
        if cost := cost_of(insertion):
            printer.note(f"note: {insertion.id}: {cost}")
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
            shapes=known.shapes,
            custom_ops=custom_ops or (),
        )
    failed = _reported(report, printer)
    if verbose:
        printer.lines(f"{each.id}: compared on {', '.join(each.inputs)}" for each in report.insertions)
    if failed:
        raise failed


def _compare_whole(
    model: str | None,
    checkpoint: str | None,
    factory: str | None,
    providers: list[str] | None,
    images: str | None,
    seeds: int,
    trust: list[str],
    printer: Printer,
) -> None:
    """Compare the whole model with the module in a checkpoint, or from a function of the user's."""
    from ..runtime.providers import imported

    imported("torch", "PyTorch, which parity is checked against,", 'pip install "graphsurgery[torch]"')
    from ..torch.parity import compare, from_checkpoint, from_factory

    opened = open_model(model)
    with aside():
        module = from_factory(factory or "") if checkpoint is None else from_checkpoint(checkpoint, trust)
        against = checkpoint or factory or ""
        report = compare(opened, module, images, providers=providers, seeds=seeds, against=against)
    failed = _reported(report, printer)
    if failed:
        raise failed


def _reported(report: Report | WholeReport, printer: Printer) -> ParityFailed | None:
    """Print a report; the error of one that failed."""
    failed = None
    try:
        report.require()
    except ParityFailed as error:
        failed = error
    printer.report(report, failed)
    return failed
