"""`graphsurgery sites`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import RequestError, option
from ..messages import attributes, listed, shape_text
from ..process.garbage import uncollected
from ..request import Argument
from .files import DASH, open_model, side_target
from .options import KnownShapes
from .output import Printer, aside, counted

if TYPE_CHECKING:
    from ..graph.work import Totals
    from ..modelfile.target import Target
    from ..outline.outline import Outline
    from ..outline.rows import Row
    from ..outline.standing import StandingBlock
    from ..selection.sites import Site, SiteFinder

_DEPTH = 2
"""levels of modules that are shown of a model in which no block was recognised"""
_OPTIONAL = ("dtype", "stride", "shape", "advisable")
"""columns that go where the terminal is too narrow: nothing that is typed"""
_PLAIN = ("stage-ends", "before-sppf")
"""roles that a table does not show: other columns say as much"""
_FORMATS = {".svg": "as_svg", ".html": "as_html", ".png": "as_png", ".pdf": "as_pdf"}
"""the ending of a picture's name -> the method of an outline that gives it"""


@uncollected()
def sites(
    model: str | None = None,
    selector: str | None = None,
    *,
    depth: Annotated[int | None, Argument(minimum=1)] = None,
    every: bool = False,
    found: bool = False,
    picture: str | None = None,
    title: str | None = None,
    force: bool = False,
    known: KnownShapes,
    printer: Printer,
) -> None:
    """List the blocks of a model and the places to insert behind them.

    Each with the selector that names it, its module path where the model tells one ("recovered" where not), the shape
    of its tensor, its stride, its role, whether a block does well there, and what reads it. A model in which no block
    is recognised is listed by module or by tensor. When MODEL is standard input and there is a selector, write '-' for
    it.

    Blocks that stand in the place of a part of the network have rows of their own, and so has, with --found, attention
    that an exporter wrote.

    \b
    graphsurgery sites yolov8n.onnx
    graphsurgery sites yolov8n.onnx 'C2f[-1]' --json
    graphsurgery sites yolov8n-simam.onnx --picture yolov8n-simam.svg

    Parameters
    ----------
    selector: SELECTOR
        Only what --after SELECTOR would name, with the reason where a place is not advisable.
    depth: N
        Levels to show, in the picture too: 1 is whole blocks, 2 their parts. A part behind which a block is inserted is
        shown at any depth.  [default: 1; with --json, all in the list and 1 in the picture]
    every:
        Show the parts of blocks at every level.
    found:
        Look for attention that an exporter wrote, too, as graphsurgery find does. That takes seconds.
    picture: FILE
        Draw the blocks and how they are wired, what is inserted highlighted: an .svg, .html, .png or .pdf file. PNG and
        PDF need the extra pictures.
    title: TEXT
        Title of the picture.  [default: the name of the model's file]
    force:
        Replace an existing picture.
    """
    from ..graph.validity import fault
    from ..outline.outline import Outline
    from ..selection.sites import SiteFinder

    if title is not None and picture is None:
        raise RequestError(f"{option('title')} is the title of a picture; add {option('picture')}")
    target = _picture_target(picture, model, force) if picture is not None else None
    opened = open_model(model)
    finder = SiteFinder(opened, known.shapes)
    if wrong := fault(finder.index):
        printer.note(f"warning: {wrong}; nothing can be inserted")
    outline = Outline(finder, _found(finder) if found else ())
    if target is not None:
        _draw(outline, target, None if every else depth or 1, title)
    usual = _DEPTH if outline.is_empty else 1
    most = None if every else depth or (None if printer.as_json else usual)
    if selector is not None:
        named = finder.find([selector])
        data = _places(printer, finder, named, [1] * len(named))
    else:
        taken = f"work: {_totals(finder)}"
        data = _modules(printer, finder, most, taken) if outline.is_empty else _blocks(printer, outline, most, taken)
        printer.lines(_without_row(outline))
        data["standing"] = [each.to_json() for each in outline.standing()]
        data["inner"] = _inner(printer, finder, shown=most is None or most > usual)
    if target is not None:
        printer.lines([f"picture: {picture}"])
    totals = attributes(_totals(finder)) if printer.as_json else {}
    printer.json({"model": model or DASH, **totals, **data, "picture": picture})


def _without_row(outline: Outline) -> Iterator[str]:
    """The blocks that stand in a model whose table does not have them: by module or tensor, or in a function."""
    for each in outline.standing():
        if outline.is_empty or (each.function and each.is_part):
            where = f", in the local function {each.function[1]!r}" if each.function else ""
            yield f"{each.module or 'attention'}, {each}{where}"


def _found(finder: SiteFinder) -> list[StandingBlock]:
    """The attention that an exporter wrote, as the outline lists it."""
    from ..find import find, standing_block

    with aside():
        return [standing_block(each) for each in find(finder.model)]


def _totals(finder: SiteFinder) -> Totals:
    """What the model takes, its calls of functions included."""
    return (finder.inside or finder).work.totals


# ---------------------------------------------------------------------- tables


def _blocks(printer: Printer, outline: Outline, depth: int | None, taken: str) -> dict[str, Any]:
    rows = outline.rows(depth)
    table = [
        (
            _name(row),
            row.path or "recovered",
            shape_text(row.shape) if row.shape is not None else "?",
            row.dtype or "",
            str(row.stride or ""),
            " ".join([row.role or "", *(role for role in row.roles if role not in _PLAIN)]).strip(),
            ", ".join([*([row.standing.said] if row.standing else []), *row.insertions]),
            "yes" if row.is_advisable else f"no: {row.objection.short}" if row.objection else "no",
            ", ".join(row.readers),
        )
        for row in rows
    ]
    shown = "inserted or found" if any(each.was_found for each in outline.standing()) else "inserted"
    headers = ("block", "module", "shape", "dtype", "stride", "role", shown, "advisable", "read by")
    same = len({row.dtype for row in rows if row.dtype}) < 2
    empty = {"dtype": same, shown: not any(row.insertions or row.standing for row in rows)}
    _table(printer, headers, table, [header for header in empty if empty[header]])
    good = sum(row.is_advisable for row in rows)
    ending = ""
    if depth is not None and (hidden := outline.hidden(depth)):
        ending = f"; {counted(hidden, 'part')} further inside: --depth {depth + 1}, or --all"
    printer.lines([taken, f"advisable: {good} of {counted(len(rows), 'place')}{ending}"])
    if not printer.as_json:
        return {}
    whole = [row for row in rows if row.depth == 1]
    replaced = {id: each.origin for id, each in outline.insertions().items() if each.origin}
    return {
        **({"replaced": replaced} if replaced else {}),
        "sites": [row.to_json() for row in rows if row.site],
        "blocks": [
            {"selector": row.name, "type": row.type, "path": row.path, "role": row.role, "tensor": row.tensor}
            | {"insertions": list(row.insertions), "readers": list(row.readers), "macs": row.macs}
            for row in whole
        ],
    }


def _table(printer: Printer, headers: Sequence[str], rows: Sequence[Sequence[str]], without: Collection[str]) -> None:
    kept = [i for i, header in enumerate(headers) if header not in without]
    printer.table([headers[i] for i in kept], [[row[i] for i in kept] for row in rows], optional=_OPTIONAL)


def _name(row: Row) -> str:
    if row.standing is not None:
        name = f"{row.standing.id} ({row.type})"
    else:
        name = row.name if row.part is None else f".{row.part} ({row.type})"
    return "  " * (row.depth - 1) + name


def _modules(printer: Printer, finder: SiteFinder, most: int | None, taken: str) -> dict[str, Any]:
    """The places of a model in which no block was recognised: by module, else by tensor."""

    found = finder.listing() or finder.tensors()
    levels = _levels(found)
    most = max(levels, default=1) if most is None else most
    kept = [(site, level) for site, level in zip(found, levels, strict=True) if level <= most]
    data = _places(printer, finder, [site for site, _ in kept], [level for _, level in kept])
    printer.lines([taken])
    if not found:
        printer.lines(
            [f"{finder.model.name} has no place for a block: no tensor in it is known to be a map [N, C, H, W]"]
        )
    elif hidden := len(found) - len(kept):
        printer.lines([f"{counted(hidden, 'more site')} further down: --depth {most + 1}, or --all"])
    return data


def _places(printer: Printer, finder: SiteFinder, found: Sequence[Site], levels: Sequence[int]) -> dict[str, Any]:
    finders = [finder.inside if site.function and finder.inside else finder for site in found]
    advice = [each.adviser.advice(site.running) for each, site in zip(finders, found, strict=True)]
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


def _inner(printer: Printer, finder: SiteFinder, *, shown: bool) -> list[dict[str, Any]]:
    """The maps inside of local functions and bodies, for which there is no place in the main graph."""
    from ..outline.inner import inner_places

    found = inner_places(finder)
    if found and shown:
        table = [
            (
                each.selector,
                each.type,
                shape_text(each.shape),
                str(each.stride or ""),
                ", ".join(each.insertions),
                each.place,
                "yes" if each.takes_block else f"no; {each.instead[0]} does" if each.instead else "no",
            )
            for each in found
        ]
        headers = ("inside", "type", "shape", "stride", "inserted", "of", "takes a block")
        _table(printer, headers, table, () if any(each.insertions for each in found) else ("inserted",))
    if found:
        taking = sum(each.takes_block for each in found)
        ending = "" if shown else "; --all shows them"
        line = f"{counted(len(found), 'map')} inside of functions or bodies, of which {taking} can take a block"
        printer.lines([line + ending])
    return [each.to_json() for each in found]


def _levels(found: Sequence[Site]) -> list[int]:
    """How deep each site's module lies among the modules that are listed, from 1."""
    from ..graph.module_paths import join

    dotted = [join((site.path or "").split("/")) for site in found]
    known = {path for path in dotted if path}
    return [1 + sum(path[:i] in known for i, character in enumerate(path) if character == ".") for path in dotted]


# ---------------------------------------------------------------------- pictures


def _picture_target(picture: str, model: str | None, force: bool) -> Target:
    """The file of a picture. RequestError, OutputError or MissingDependency, before any work, if it
    cannot be written.
    """
    path = Path(picture)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise RequestError(f"a picture is an {listed(_FORMATS, last=' or')} file, not {path.name or picture!r}")
    target = side_target(picture, [model], "picture", force=force)
    if suffix in (".png", ".pdf"):
        from ..outline.picture.raster import converter

        converter(suffix[1:])
    return target


def _draw(outline: Outline, target: Target, depth: int | None, title: str | None) -> None:
    from ..modelfile.saving import write_whole

    drawn = getattr(outline, _FORMATS[target.path.suffix.lower()])(depth=depth, title=title)
    write_whole(target, drawn if isinstance(drawn, bytes) else drawn.encode())
