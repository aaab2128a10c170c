"""`graphsurgery remove`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import RequestError, option
from ..messages import shape_text
from ..request import Selectors
from .files import DASH, Output, open_model
from .output import Printer, aside, counted

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion

_PRIVATE = ("stored", "original", "fields", "at")
"""fields of a record that JSON does not show"""


def remove(
    model: str | None = None,
    ids: list[str] | None = None,
    *,
    every: bool = False,
    found: Selectors = (),
    output: Output,
    verbose: bool = False,
    printer: Printer,
) -> None:
    """List the insertions of a model, or undo them.

    Undoing all of them gives back the bytes of the original file. When MODEL is standard input and there are ids, write
    '-' for it.

    With --found, attention that its exporter wrote is taken out: the network without it, to see what it costs. That can
    be undone like an insertion.

    \b
    graphsurgery remove yolov8n-simam.onnx
    graphsurgery remove yolov8n-simam.onnx model.8.simam -o yolov8n.onnx
    graphsurgery remove mobilenet_v3.onnx --found 'InvertedResidual[*].se' -o without.onnx

    Parameters
    ----------
    ids: ID
        Insertions to undo, by id. None: list the insertions.
    every:
        Undo every insertion.
    found: SELECTOR
        Take out attention that graphsurgery find names, or a module that keeps the shape of its input. May be repeated.
    """
    if every and ids:
        raise RequestError("give ids or --all, not both")
    if found:
        if every or ids:
            raise RequestError(f"give ids, --all or {option('found')}, not several of them", option="found")
        _take_out(model, list(found), output, printer)
        return
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


def _take_out(model: str | None, found: list[str], output: Output, printer: Printer) -> None:
    """Take attention out that an exporter wrote, and say what is gone."""
    from ..api import carry_out
    from ..blocks.nothing import NOTHING
    from ..errors import SelectorError, SiteError, concerning
    from ..request import Request

    target = output.destination(model)
    before = open_model(model)
    with aside(), concerning("found", SelectorError, SiteError):
        after, done = carry_out(before, [Request(NOTHING, in_place_of=tuple(found))])
    target.deliver(after)
    printer.to_stderr = target.is_standard_output
    records = [each.insertion for each in done]
    removed: list[dict[str, Any]] = [
        {"id": each.id, "place": each.site.path or each.site.tensor, "nodes": _nodes_of(each)} for each in records
    ]
    label = None if target.dry else target.label
    printer.json({"model": model or DASH, "output": label, "removed": removed})
    for each in removed:
        printer.lines([f"{each['id']}: {each['place']} is taken out, {counted(each['nodes'], 'node')}"])
    printer.lines([target.sentence])


def _nodes_of(insertion: Insertion) -> int:
    assert insertion.replaced is not None
    return insertion.replaced.nodes


def _state(left: list[str], original: bool | None) -> list[str]:
    if original is None:
        return [f"still there: {', '.join(left)}"]
    if original:
        return ["the structure and the size are again those of the original model"]
    return ["the result is not the original model: something else was changed since the first insertion"]


def _shown(insertion: Insertion) -> dict[str, Any]:
    """A record as JSON shows it."""
    found = {key: value for key, value in asdict(insertion).items() if key not in _PRIVATE}
    if found["replaced"]:
        found["replaced"] = {key: value for key, value in found["replaced"].items() if key not in _PRIVATE}
    return found


def _list(model: ModelFile, label: str, printer: Printer, verbose: bool) -> None:
    insertions = model.insertions()
    kept = [_shown(each) for each in insertions]
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
        added += f", {insertion.origin}" if insertion.origin else ""
        init = insertion.init + (", gated" if insertion.gate == "residual" else "")
        where = f"{site.position} {site.path or site.tensor}"
        where += f" for {', '.join(site.consumers)}" if site.others else ""
        rows.append((insertion.id, insertion.module, where, shape, init, added))
    printer.table(headers, rows, optional=("init", "shape", "added"))
    if verbose:
        printer.lines(f"{insertion.id}: {', '.join(insertion.nodes)}" for insertion in insertions)
