"""`graphsurgery remove`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InsertionError, RequestError
from . import options

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion
    from .output import Printer


def remove(
    model: options.Model = None,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Insertions to undo, by id. None: list the insertions.", show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Undo every insertion.")] = False,
    output: options.Output = None,
    force: options.Force = False,
    in_place: options.InPlace = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """List the insertions of a model, or undo them.

    Undoing all of them gives back the bytes of the original file. When MODEL is standard input and there are ids, write
    '-' for it.

    \b
    graphsurgery remove yolov8n-simam.onnx
    graphsurgery remove yolov8n-simam.onnx model.8.simam -o yolov8n.onnx
    """
    from .files import DASH, destination, open_model
    from .output import Printer

    if every and ids:
        raise RequestError("give ids or --all, not both")
    if not every and not ids:
        if output or in_place:
            raise RequestError("say which insertions to undo: their ids, or --all")
        _list(open_model(model), model or DASH, Printer(as_json=as_json, quiet=quiet), verbose)
        return
    from ..insertion import removal

    target = destination(model, output, force=force, in_place=in_place, dry=dry_run)
    before = open_model(model)
    insertions = before.insertions()
    if not insertions:
        raise InsertionError(f"{before.name} has no insertions made by graphsurgery, so there is nothing to undo")
    chosen = list(dict.fromkeys(ids)) if ids else [insertion.id for insertion in insertions]
    after = removal.remove(before, chosen)
    left = [insertion.id for insertion in after.insertions()]
    original = None if left else after.digest() == insertions[0].original
    target.deliver(after)
    printer = Printer(as_json=as_json, to_stderr=target.is_standard_output, quiet=quiet)
    output = None if dry_run else target.label
    printer.json({"model": model or DASH, "output": output, "removed": chosen, "remaining": left, "original": original})
    printer.lines([f"undone: {', '.join(chosen)}", *_state(left, original)])
    printer.lines([target.sentence])


def _state(left: list[str], original: bool | None) -> list[str]:
    if original is None:
        return [f"still there: {', '.join(left)}"]
    if original:
        return ["the structure and the size are again those of the original model"]
    return ["the result is not the original model: something else was changed since the first insertion"]


def _list(model: ModelFile, label: str, printer: Printer, verbose: bool) -> None:
    from ..messages import shape_text
    from .output import counted

    insertions = model.insertions()
    printer.json({"model": label, "insertions": [_json(insertion) for insertion in insertions]})
    if not insertions:
        printer.lines([f"{model.name} has no insertions made by graphsurgery"])
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


def _json(insertion: Insertion) -> dict[str, object]:
    from dataclasses import asdict

    data = asdict(insertion)
    del data["stored"], data["original"]
    return data
