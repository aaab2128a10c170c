"""`graphsurgery sites`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import RequestError
from ..messages import shape_text
from ..request import Argument
from .files import DASH, open_model, side_target
from .output import Printer, counted

if TYPE_CHECKING:
    from ..modelfile.target import Target
    from ..outline.outline import Outline
    from ..outline.rows import Row
    from ..selection.sites import Site, SiteFinder

_DEPTH = 2
"""levels of modules that are shown of a model in which no block was recognised"""
_OPTIONAL = ("dtype", "stride", "shape", "advisable")
"""columns that go where the terminal is too narrow: nothing that is typed"""
_PLAIN = ("stage-ends", "before-sppf")
"""roles that a table does not show: other columns say as much"""
_SUFFIXES = (".svg", ".html")


def sites(
    model: str | None = None,
    selector: str | None = None,
    *,
    depth: Annotated[int | None, Argument(minimum=1)] = None,
    every: bool = False,
    picture: str | None = None,
    force: bool = False,
    printer: Printer,
) -> None:
    """List the blocks of a model and the places to insert behind them.

    Each with the selector that names it, its module path where the model tells one ("recovered" where not), the shape
    of its tensor, its stride, its role, whether a block does well there, and what reads it. A model in which no block
    is recognised is listed by module or by tensor. When MODEL is standard input and there is a selector, write '-' for
    it.

    \b
    graphsurgery sites yolov8n.onnx
    graphsurgery sites yolov8n.onnx 'C2f[-1]' --json
    graphsurgery sites yolov8n-simam.onnx --picture yolov8n-simam.svg

    Parameters
    ----------
    selector: SELECTOR
        Only what --after SELECTOR would name, with the reason where a place is not advisable.
    depth: N
        Levels to show: 1 is whole blocks, 2 their parts.  [default: 1; with --json, all]
    every:
        Show the parts of blocks at every level.
    picture: FILE
        Draw the blocks and how they are wired, what is inserted highlighted: an .svg or .html file.
    force:
        Replace an existing picture.
    """
    from ..graph.validity import fault
    from ..outline.outline import Outline
    from ..selection.sites import SiteFinder

    target = _picture_target(picture, model, force) if picture is not None else None
    opened = open_model(model)
    finder = SiteFinder(opened)
    if wrong := fault(finder.index):
        printer.note(f"warning: {wrong}; nothing can be inserted")
    outline = Outline(finder)
    if target is not None:
        _draw(outline, target)
    usual = _DEPTH if outline.is_empty else 1
    most = None if every else depth or (None if printer.as_json else usual)
    if selector is not None:
        found = finder.find([selector])
        data = _places(printer, finder, found, [1] * len(found))
    else:
        data = _modules(printer, finder, most) if outline.is_empty else _blocks(printer, outline, most)
    if target is not None:
        printer.lines([f"picture: {picture}"])
    printer.json({"model": model or DASH, **data, "picture": picture})


# ---------------------------------------------------------------------- tables


def _blocks(printer: Printer, outline: Outline, depth: int | None) -> dict[str, Any]:

    rows = outline.rows(depth)
    table = [
        (
            _name(row),
            row.path or "recovered",
            shape_text(row.shape) if row.shape is not None else "?",
            row.dtype or "",
            str(row.stride or ""),
            " ".join([row.role or "", *(role for role in row.roles if role not in _PLAIN)]).strip(),
            ", ".join(row.insertions),
            "yes" if row.is_advisable else f"no: {row.objection.short}" if row.objection else "no",
            ", ".join(row.readers),
        )
        for row in rows
    ]
    headers = ("block", "module", "shape", "dtype", "stride", "role", "inserted", "advisable", "read by")
    same = len({row.dtype for row in rows if row.dtype}) < 2
    empty = {"dtype": same, "inserted": not any(row.insertions for row in rows)}
    _table(printer, headers, table, [header for header in empty if empty[header]])
    good = sum(row.is_advisable for row in rows)
    ending = ""
    if depth is not None and (hidden := outline.hidden(depth)):
        ending = f"; {counted(hidden, 'part')} further inside: --depth {depth + 1}, or --all"
    printer.lines([f"advisable: {good} of {counted(len(rows), 'place')}{ending}"])
    places = [row for row in rows if row.site]
    whole = [row for row in rows if row.depth == 1] if printer.as_json else []
    return {
        "sites": [row.to_json() for row in places] if printer.as_json else [],
        "blocks": [
            {"selector": row.name, "type": row.type, "path": row.path, "role": row.role, "tensor": row.tensor}
            | {"insertions": list(row.insertions), "readers": list(row.readers)}
            for row in whole
        ],
    }


def _table(printer: Printer, headers: Sequence[str], rows: Sequence[Sequence[str]], without: Collection[str]) -> None:
    kept = [i for i, header in enumerate(headers) if header not in without]
    printer.table([headers[i] for i in kept], [[row[i] for i in kept] for row in rows], optional=_OPTIONAL)


def _name(row: Row) -> str:
    if row.part is None:
        return row.name
    return f"{'  ' * (row.depth - 1)}.{row.part} ({row.type})"


def _modules(printer: Printer, finder: SiteFinder, most: int | None) -> dict[str, Any]:
    """The places of a model in which no block was recognised: by module, else by tensor."""

    found = finder.listing() or finder.tensors()
    levels = _levels(found)
    most = max(levels, default=1) if most is None else most
    kept = [(site, level) for site, level in zip(found, levels, strict=True) if level <= most]
    data = _places(printer, finder, [site for site, _ in kept], [level for _, level in kept])
    if not found:
        printer.lines(
            [f"{finder.model.name} has no place for a block: no tensor in it is known to be a map [N, C, H, W]"]
        )
    elif hidden := len(found) - len(kept):
        printer.lines([f"{counted(hidden, 'more site')} further down: --depth {most + 1}, or --all"])
    return data


def _places(printer: Printer, finder: SiteFinder, found: Sequence[Site], levels: Sequence[int]) -> dict[str, Any]:
    advice = [finder.adviser.advice(site.tensor) for site in found]
    if found:
        rows = [
            (
                "  " * (level - 1) + (site.path or f"tensor:{site.tensor}"),
                site.type or "",
                shape_text(site.shape),
                site.dtype,
                str(site.stride or ""),
                ", ".join([*site.consumers, *(["(model output)"] if site.graph_output else [])]),
            )
            for site, level in zip(found, levels, strict=True)
        ]
        headers = ("module", "type", "shape", "dtype", "stride", "consumers")
        without = () if any(site.type for site in found) else ("type",)
        _table(printer, headers, rows, without)
        printer.lines(f"note: {note}" for note in dict.fromkeys(site.note for site in found if site.note))
        against = [(site, each) for site, each in zip(found, advice, strict=True) if each]
        printer.lines(f"not advisable: {site.path or site.tensor}: {each.sentence}" for site, each in against)
    return {
        "sites": [
            {**site.to_json(), "advisable": each is None, "reason": each.sentence if each else None}
            for site, each in zip(found, advice, strict=True)
        ]
    }


def _levels(found: Sequence[Site]) -> list[int]:
    """How deep each site's module lies among the modules that are listed, from 1."""
    from ..graph.module_paths import join

    dotted = [join((site.path or "").split("/")) for site in found]
    known = {path for path in dotted if path}
    return [1 + sum(path[:i] in known for i, character in enumerate(path) if character == ".") for path in dotted]


# ---------------------------------------------------------------------- pictures


def _picture_target(picture: str, model: str | None, force: bool) -> Target:
    """The file of a picture. RequestError or OutputError, before any work, if it must not be written."""
    path = Path(picture)
    if path.suffix.lower() not in _SUFFIXES:
        raise RequestError(f"a picture is an .svg or .html file, not {path.name or picture!r}")
    return side_target(picture, [model], "picture", force=force)


def _draw(outline: Outline, target: Target) -> None:
    from ..modelfile.saving import write_whole

    written = outline.as_html() if target.path.suffix.lower() == ".html" else outline.as_svg()
    write_whole(target, written.encode())
