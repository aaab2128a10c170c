"""Sections of the page, and the page around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from ...errors import MissingDependency
from ...messages import listed, shape_text
from .columns import Column, columns
from .heat import heat_maps
from .plots import plots
from .text import activation, count, html, size

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""for the browser: it may load nothing, from nowhere"""
_Report = Mapping[str, Any]


def page(report: _Report, picture: str = "") -> str:
    """A report as one HTML file.

    Parameters
    ----------
    report:
        What report.json holds, complete or not.
    picture:
        The SVG of the detector, from :func:`.marked_picture`; "" leaves it out.

    Returns
    -------
    str
        A page that loads nothing. The same report gives the same text with the same version of matplotlib; without
        matplotlib the page says what is missing.
    """
    title = f"Sweep of {html(report['model']['name'])}"
    body = "\n".join(
        [
            f"<h1>{title}</h1>",
            _summary(report),
            _section("cells", "Cells", _filters(report) + _table(report)),
            _section("pareto", "Latency against price", _plots(report)),
            _section("heat", "Block x place", "\n".join(heat_maps(report)) or "<p>Nothing has been measured yet.</p>"),
            _section("places", "Places", _places(report, picture)),
            _section("commands", "Commands", _commands(report)),
            _section("setup", "How it was measured", _setup(report)),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _section(name: str, title: str, content: str) -> str:
    heading = f'<h2 id="{name}-title">{title}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{heading}\n{content}\n</section>'


# ------------------------------------------------------------------- summary


def _summary(report: _Report) -> str:
    model, cells = report["model"], report["cells"]
    states = [cell["state"] for cell in cells]
    done = f"{states.count('done')} of {len(cells)} cells are done"
    if failed := states.count("failed"):
        done += f", {failed} failed"
    if not report["complete"]:
        done += "; the sweep is not finished, or it was interrupted"
    facts = [f"{count(model['nodes'])} nodes", size(model["bytes"])]
    if model["macs"] is not None:
        facts.append(f"{count(model['macs'])} MACs")
    if model["largest_activation"] is not None:
        facts.append(f"largest activation {activation(model['largest_activation'])}")
    inputs = (f"{name} {shape_text(each['shape'])} {each['dtype']}" for name, each in model["inputs"].items())
    lines = [f"{done}.", f"The model has {', '.join([*facts, *inputs])}."]
    if report["budgets"]:
        fitting = sum(cell["fits"] is True for cell in cells)
        lines.append(f"{fitting} fit the budgets {listed(report['budgets'], len(report['budgets']))}.")
    return "".join(f'<p class="lead">{html(line)}</p>' for line in lines)


# --------------------------------------------------------------------- table


def _filters(report: _Report) -> str:
    """Controls that page.js brings to life; hidden without it."""
    selects = "".join(
        f'<label>{label} <select data-filter="{key}"><option value="">all</option>'
        + "".join(f"<option>{html(value)}</option>" for value in dict.fromkeys(cell[key] for cell in report["cells"]))
        + "</select></label>"
        for label, key in (("Block", "module"), ("Place", "place"), ("State", "state"))
    )
    fits = '<label><input type="checkbox" data-filter="fits"> fits the budgets</label>' if report["budgets"] else ""
    return (
        '<form class="filters" hidden><label>Search <input type="search" data-filter="text"></label>'
        f'{selects}{fits}<button type="reset">Show all</button><output aria-live="polite"></output></form>\n'
    )


def _table(report: _Report) -> str:
    shown = columns(report)
    head = "".join(f'<th scope="col"{_kind(column)}>{html(column.title)}</th>' for column in shown)
    body = "\n".join(_row(number, cell, shown) for number, cell in enumerate(report["cells"]))
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Table of all cells"><table class="cells">'
        "<caption>One row for each block at each place. <small>Differences are to the model without the block; "
        "latency has its interval in brackets. report.csv holds all figures.</small></caption>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _row(number: int, cell: Mapping[str, Any], shown: list[Column]) -> str:
    first, *others = shown
    data = "".join(f' data-{name}="{html(cell[name])}"' for name in ("module", "place", "state"))
    entries = "".join(
        f"<td{_kind(column, cell)}{_key(column, cell)}>{html(column.text(cell))}</td>" for column in others
    )
    link = f'<a href="#command-{number}">{html(first.text(cell))}</a>'
    fits = ' data-fits="yes"' if cell["fits"] else ""
    return f'<tr id="cell-{number}"{data}{fits}><th scope="row"{_key(first, cell)}>{link}</th>{entries}</tr>'


def _kind(column: Column, cell: Mapping[str, Any] | None = None) -> str:
    """The classes of a header, or of an entry: one without a figure may hold a sentence, which is no number."""
    numeric = column.numeric and (cell is None or column.key(cell) is not None)
    names = ["number"] * numeric + ["screen"] * (not column.printed)
    return f' class="{" ".join(names)}"' if names else ""


def _key(column: Column, cell: Mapping[str, Any]) -> str:
    key = column.key(cell)
    return "" if key is None else f' data-key="{html(key)}"'


# --------------------------------------------------- plots, places, commands


def _plots(report: _Report) -> str:
    try:
        drawn = list(plots(report))
    except MissingDependency as error:
        return f"<p>{html(error)}</p>"
    if not drawn:
        return "<p>Too little has been timed for a plot.</p>"
    figures = "".join(
        f'<figure role="group" aria-label="{html(title)}"><figcaption>{html(title)}</figcaption>{svg}</figure>'
        for title, svg in drawn
    )
    note = (
        "A point is a cell and leads to its row. Hollow points are no verdict: below noise, or too few rounds. "
        "Vertical lines are intervals; the steps are the Pareto front, whose cells none beats in both."
    )
    return f'<p>{note}</p><div class="plots">{figures}</div>'


def _places(report: _Report, picture: str) -> str:
    drawn = f'<div class="scroll picture" role="region" tabindex="0" aria-label="The detector">{picture}</div>'
    note = "<p>The numbers in the picture are those of this list.</p>"
    return f"{drawn + note if picture else ''}<ol>{''.join(_place(column) for column in report['columns'])}</ol>"


def _place(column: Mapping[str, Any]) -> str:
    if column["reason"]:
        return f"<li><code>{html(column['place'])}</code><pre>{html(column['reason'])}</pre></li>"
    sites = "".join(f"<li>{html(_site(site))}</li>" for site in column["places"])
    return f"<li><code>{html(column['place'])}</code><ul>{sites}</ul></li>"


def _site(site: Mapping[str, Any]) -> str:
    parts = [site["path"] or site["tensor"], site["type"], shape_text(site["shape"])]
    if site["stride"] is not None:
        parts.append(f"stride {site['stride']}")
    return ", ".join(part for part in parts if part)


def _commands(report: _Report) -> str:
    return "<dl>" + "".join(_command(number, cell) for number, cell in enumerate(report["cells"])) + "</dl>"


def _command(number: int, cell: Mapping[str, Any]) -> str:
    name = html(f"{cell['module']} at {cell['place']}")
    return (
        f'<dt id="command-{number}"><a href="#cell-{number}">{name}</a></dt>'
        f"<dd><code>{html(cell['command'])}</code></dd>"
    )


# --------------------------------------------------------------------- setup


def _setup(report: _Report) -> str:
    facts = dict(_facts(report))
    return "<dl class='facts'>" + "".join(f"<dt>{html(n)}</dt><dd>{html(v)}</dd>" for n, v in facts.items()) + "</dl>"


def _facts(report: _Report) -> Iterator[tuple[str, str]]:
    machine = report["machine"]
    yield "Model", f"{report['model']['name']}, digest {report['model']['digest']}"
    yield "Drift", f"on {report['drift_on']}"
    yield "Detections", report["detections"] or report["not_read"]
    yield from _plain(report["settings"])
    versions = {"graphsurgery": report.get("graphsurgery"), **(machine.get("versions") or {})}
    yield "Versions", _flat(versions)
    yield from _plain({name: value for name, value in machine.items() if name != "versions"})


def _plain(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is set, with its name as a title."""
    for name, value in values.items():
        if text := _flat(value):
            yield name.replace("_", " ").capitalize(), text


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_flat(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, list):
        return ", ".join(_flat(each) for each in value)
    return "" if value is None else str(value)
