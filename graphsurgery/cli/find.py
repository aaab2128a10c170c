"""`graphsurgery find`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .files import open_model
from .output import Printer, aside

if TYPE_CHECKING:
    from ..find import Found

_HEADERS = ("place", "block", "settings", "proven", "max error", "nodes", "note")


def find(model: str | None = None, *, printer: Printer) -> None:
    """Find attention that an exporter wrote, and prove what it is.

    Each part is compared in numbers with the PyTorch module of the block. What is only alike is listed as such.

    \b
    graphsurgery find mobilenet_v3.onnx
    """
    from ..find import find as look

    opened = open_model(model)
    with aside():
        found = look(opened)
    printer.json({"found": [each.to_dict() for each in found]})
    if not found:
        printer.lines([f"no attention was found in {opened.name}"])
        return
    printer.table(_HEADERS, [_row(each) for each in found], optional=("note", "max error", "settings"))
    printer.lines(_findings(found))


def _row(found: Found) -> tuple[str, ...]:
    block = found.block
    given = {name: value for name, value in block.recorded_values().items() if value is not None} if block else {}
    return (
        found.place,
        block.spelled if block else "",
        ", ".join(f"{name}={value}" for name, value in given.items()),
        "yes" if found.proven else "no",
        f"{found.max_error:.1e}" if found.max_error is not None else "",
        str(len(found.part.nodes)),
        found.said,
    )


def _findings(found: Sequence[Found]) -> Iterator[str]:
    """What is bad about their forms: a line for each finding, with all places that have it."""
    places: dict[str, list[str]] = {}
    for each in found:
        for finding in each.findings:
            places.setdefault(finding, []).append(each.place)
    groups: dict[str, list[str]] = {}
    for finding, where in places.items():
        groups.setdefault(", ".join(where), []).append(finding)
    for named, findings in groups.items():
        yield ""
        yield f"{named}:"
        yield from (f"  {finding}" for finding in findings)
