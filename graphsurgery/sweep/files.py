"""Files of a report: JSON, CSV, Markdown, LaTeX and a page, each written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import OutputError, option
from ..modelfile.saving import write_whole
from ..modelfile.target import as_output_error
from .page import page
from .rows import SHOWN, rows, shown

JSON, PAGE = "report.json", "report.html"
FORMAT, VERSION = "graphsurgery sweep", 1
_Report = Mapping[str, Any]


def as_json(report: _Report) -> str:
    """The report itself; keys as in docs/sweep.md."""
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


def as_csv(report: _Report) -> str:
    """A line for each cell, with the figures as they are."""
    found, stream = rows(report), io.StringIO()
    names = list(dict.fromkeys(name for row in found for name in row))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return stream.getvalue()


def as_markdown(report: _Report) -> str:
    """A table for a README."""
    lines = [SHOWN, ["---"] * len(SHOWN), *shown(report)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def as_latex(report: _Report) -> str:
    """A table for a paper, with the package booktabs."""
    head, *body = [" & ".join(map(_latex, line)) + r" \\" for line in [SHOWN, *shown(report)]]
    columns = "ll" + "r" * (len(SHOWN) - 2)
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


WRITERS: Mapping[str, Callable[[_Report], str]] = {
    JSON: as_json,
    "report.csv": as_csv,
    "report.md": as_markdown,
    "report.tex": as_latex,
}
"""file -> what makes its text of a report, complete or partial"""


def write(report: _Report, folder: Path, picture: str) -> None:
    """Write all files, in place of those of an earlier state of the same report. OutputError.

    ``picture``: the SVG of the detector for the page; "" where there is none.
    """
    texts = {name: make(report) for name, make in WRITERS.items()} | {PAGE: page(report, picture)}
    for name, text in texts.items():
        write_whole(folder / name, text.encode(), force=True)


def write_recipe(cell: Mapping[str, Any], path: Path) -> None:
    """Write what makes a cell as a recipe. OutputError."""
    text = yaml.safe_dump(cell["recipe"], sort_keys=False, allow_unicode=True)
    write_whole(path, text.encode(), force=True)


def prepare(folder: Path, *, resume: bool, force: bool) -> dict[str, Any] | None:
    """Make the folder for a report, or the report that is in it and goes on. OutputError if it must not go there."""
    with as_output_error(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; give the name of a folder for the report")
        folder.mkdir(exist_ok=True)
        inside = sorted(each.name for each in folder.iterdir())
    if not inside:
        return None
    earlier = _read(folder / JSON)
    if earlier is None:
        raise OutputError(f"the folder {folder} holds something else than a report: {', '.join(inside[:3])}")
    if not resume and not force:
        goes_on = f"{option('resume', True)} goes on with it, {option('force', True)} replaces it"
        raise OutputError(f"the folder {folder} holds a report already: {goes_on}")
    return earlier if resume else None


def _read(path: Path) -> dict[str, Any] | None:
    """A report of this version; None for anything else."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and (found.get("format"), found.get("version")) == (FORMAT, VERSION)
    return found if known else None


_LATEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)


def _latex(text: str) -> str:
    return text.translate(_LATEX)
