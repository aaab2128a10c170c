"""Heat maps block x place, as tables: the figures can be read, copied and printed, with colours or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from typing import Any

from .columns import Cell, drift, latency
from .text import html, milliseconds, share

_STRONGEST = 60
"""percent of the colour in the strongest cell: more would make the text in it hard to read"""


def heat_maps(report: Mapping[str, Any]) -> list[str]:
    """A table for the latency on each provider, and one for the drift at the default start, of what was measured."""
    cells = report["cells"]
    maps = []
    for provider in dict.fromkeys(name for cell in cells for name in cell["latency"]):
        maps.append(_latency_map(report, provider))
    if any(drift(cell, "default") is not None for cell in cells):
        maps.append(_drift_map(report))
    return maps


def _latency_map(report: Mapping[str, Any], provider: str) -> str:
    timed = [figures for cell in report["cells"] if (figures := latency(cell, provider))]
    most = max((abs(figures["difference"]) for figures in timed), default=0)

    def shown(cell: Cell) -> tuple[str, str]:
        figures = latency(cell, provider)
        if figures is None:
            return "", ""
        text = milliseconds(figures["difference"])
        if figures["verdict"] not in ("slower", "faster"):
            return f"{text}, {figures['verdict']}", ""
        return text, _colour("hot" if figures["difference"] > 0 else "cold", abs(figures["difference"]) / most)

    title = f"Change of latency on {provider}"
    return _table(report, title, "Only what is slower or faster than noise is coloured.", shown)


def _drift_map(report: Mapping[str, Any]) -> str:
    found = [value for cell in report["cells"] if (value := drift(cell, "default"))]
    least, most = min(found, default=1), max(found, default=1)

    def shown(cell: Cell) -> tuple[str, str]:
        value = drift(cell, "default")
        if not value:
            return share(value), ""
        strength = 1 if most == least else 0.1 + 0.9 * log(value / least) / log(most / least)
        return share(value), _colour("hot", strength)

    title = "Drift of the raw outputs at the default start"
    return _table(report, title, "Relative error; the colours are on a logarithmic scale.", shown)


def _colour(name: str, strength: float) -> str:
    return f"color-mix(in srgb, var(--{name}) {_STRONGEST * strength:.0f}%, var(--paper))"


def _table(report: Mapping[str, Any], title: str, note: str, shown: Callable[[Cell], tuple[str, str]]) -> str:
    at = {(cell["module"], cell["place"]): (number, cell) for number, cell in enumerate(report["cells"])}
    modules, places = (list(dict.fromkeys(key[i] for key in at)) for i in (0, 1))
    head = "".join(f'<th scope="col">{html(place)}</th>' for place in places)
    lines = []
    for module in modules:
        entries = "".join(_entry(at.get((module, place)), shown) for place in places)
        lines.append(f'<tr><th scope="row">{html(module)}</th>{entries}</tr>')
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{html(title)}"><table class="heat">'
        f"<caption>{html(title)} <small>{note}</small></caption>"
        f'<thead><tr><th scope="col">Block</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _entry(found: tuple[int, Cell] | None, shown: Callable[[Cell], tuple[str, str]]) -> str:
    if found is None:
        return "<td></td>"
    number, cell = found
    text, colour = shown(cell)
    style = f' style="background:{colour}"' if colour else ""
    return f'<td{style}><a href="#cell-{number}">{html(text or cell["state"])}</a></td>'
