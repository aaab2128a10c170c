"""`graphsurgery remove`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..messages import shape_text
from .files import DASH, Output, open_model
from .output import Printer, counted

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile

_PRIVATE = ("stored", "original")
"""fields of a record that JSON does not show"""


def remove(
    model: str | None = None,
    ids: list[str] | None = None,
    *,
    every: bool = False,
    output: Output,
    verbose: bool = False,
    printer: Printer,
) -> None:
    """List the insertions of a model, or undo them.

    Undoing all of them gives back the bytes of the original file. When MODEL is standard input and there are ids, write
    '-' for it.

    \b
    graphsurgery remove yolov8n-simam.onnx
    graphsurgery remove yolov8n-simam.onnx model.8.simam -o yolov8n.onnx

    Parameters
    ----------
    ids: ID
        Insertions to undo, by id. None: list the insertions.
    every:
        Undo every insertion.
    """
    if every and ids:
        raise RequestError("give ids or --all, not both")
    if not every and not ids:
        if output.output or output.in_place:
            raise RequestError("say which insertions to undo: their ids, or --all")
        _list(open_model(model), model or DASH, printer, verbose)
        return
    from ..insertion import removal
    from ..insertion.unrecorded import none_recorded

    target = output.destination(model)
    before = open_model(model)
    insertions = before.insertions()
    if not insertions:
        raise none_recorded(before, "undo")
    chosen = list(dict.fromkeys(ids)) if ids else [insertion.id for insertion in insertions]
    after = removal.remove(before, chosen)
    left = [insertion.id for insertion in after.insertions()]
    original = None if left else after.digest() == insertions[0].original
    target.deliver(after)
    printer.to_stderr = target.is_standard_output
    label = None if target.dry else target.label
    printer.json({"model": model or DASH, "output": label, "removed": chosen, "remaining": left, "original": original})
    printer.lines([f"undone: {', '.join(chosen)}", *_state(left, original)])
    printer.lines([target.sentence])


def _state(left: list[str], original: bool | None) -> list[str]:
    if original is None:
        return [f"still there: {', '.join(left)}"]
    if original:
        return ["the structure and the size are again those of the original model"]
    return ["the result is not the original model: something else was changed since the first insertion"]


def _list(model: ModelFile, label: str, printer: Printer, verbose: bool) -> None:
    insertions = model.insertions()
    kept = [{key: value for key, value in asdict(each).items() if key not in _PRIVATE} for each in insertions]
    printer.json({"model": label, "insertions": kept})
    if not insertions:
        from ..insertion.unrecorded import lost

        hint = lost(model)
        printer.lines([f"{model.name} has no insertions made by graphsurgery{f'; {hint}' if hint else ''}"])
        return
    headers = ("id", "block", "where", "shape", "init", "added")
    rows = []
    for insertion in insertions:
        site = insertion.site
        shape = f"{shape_text(site.shape)} {site.dtype}"
        added = f"{counted(len(insertion.nodes), 'node')}, {counted(insertion.parameters, 'parameter')}"
        added += f", {insertion.qdq.type} pair" if insertion.qdq else ""
        init = insertion.init + (", gated" if insertion.gate == "residual" else "")
        where = f"{site.position} {site.path or site.tensor}"
        where += f" for {', '.join(site.consumers)}" if site.others else ""
        rows.append((insertion.id, insertion.module, where, shape, init, added))
    printer.table(headers, rows, optional=("init", "shape", "added"))
    if verbose:
        printer.lines(f"{insertion.id}: {', '.join(insertion.nodes)}" for insertion in insertions)
