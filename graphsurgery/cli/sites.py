"""`graphsurgery sites`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from ..sites import Site

_DEPTH = 2


def sites(
    model: options.Model = None,
    selector: Annotated[
        str | None,
        typer.Argument(
            metavar="SELECTOR", help="Only what --after SELECTOR would name, at any depth.", show_default=False
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Levels of modules to show.  [default: 2; with --json, all]", show_default=False
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show modules at every level.")] = False,
    as_json: options.Json = False,
) -> None:
    """List the places to insert a block.

    Each with the shape of its tensor, its stride and its consumers. A model whose nodes carry no module paths is listed
    by tensor. When MODEL is standard input and there is a selector, write '-' for it.

    \b
    graphsurgery sites yolov8n.onnx
    graphsurgery sites yolov8n.onnx '/model.{4,6,8}' --json
    """
    from ..sites import SiteFinder
    from .files import DASH, open_model
    from .output import Printer, counted, listed, shape_text

    opened = open_model(model)
    finder = SiteFinder(opened)
    found = finder.find([selector]) if selector is not None else finder.listing() or finder.tensors()
    levels = _levels(found) if selector is None else [1] * len(found)
    most = max(levels, default=1) if every or (depth is None and as_json) else depth or _DEPTH
    shown = [(site, level) for site, level in zip(found, levels, strict=True) if level <= most]
    printer = Printer(as_json=as_json)
    printer.json({"model": model or DASH, "sites": [site.to_json() for site, _ in shown]})
    if not found:
        printer.lines([f"{opened.name} has no place for a block: no tensor in it is known to be [N, C, H, W]"])
        return
    rows = [
        (
            "  " * (level - 1) + (site.path or f"tensor:{site.tensor}"),
            site.type or "",
            shape_text(site.shape),
            site.dtype,
            str(site.stride or ""),
            listed([*site.consumers, *(["(model output)"] if site.graph_output else [])], 2),
        )
        for site, level in shown
    ]
    headers = ("module", "type", "shape", "dtype", "stride", "consumers")
    kept = [i for i, header in enumerate(headers) if header != "type" or any(row[i] for row in rows)]
    printer.table([headers[i] for i in kept], [[row[i] for i in kept] for row in rows], cut=True)
    if hidden := len(found) - len(shown):
        printer.lines([f"{counted(hidden, 'more site')} further down: --depth {most + 1}, or --all"])


def _levels(found: Sequence[Site]) -> list[int]:
    """How deep each site's module lies among the modules that are listed, from 1."""
    from ..modulepath import join

    dotted = [join((site.path or "").split("/")) for site in found]
    known = {path for path in dotted if path}
    return [1 + sum(path[:i] in known for i, character in enumerate(path) if character == ".") for path in dotted]
