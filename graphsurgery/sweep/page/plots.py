"""Plots by matplotlib, which is an extra: latency against parameters, and against drift, with the Pareto front."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from typing import Any

from ...errors import MissingDependency
from .columns import drift, latency
from .text import html, milliseconds

_INK, _HOT = "#010203", "#040506"
"""stand for colours of the page, which follow its light or dark mode"""
_COLOURS = {_INK: "currentColor", _HOT: "var(--accent)"}
_LABELS = 8
"""points of the front that are named in the plot; the others by their tooltips"""
_LINK = re.compile(r'<a xlink:href="#cell-(\d+)"[^>]*>')
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Point:
    """A cell of the report in a plot: latency in ms over some price."""

    number: int
    name: str
    price: float
    latency: float
    low: float
    high: float
    certain: bool


def plots(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The title and the SVG of each plot that two cells or more have figures for. MissingDependency."""
    for provider in dict.fromkeys(name for cell in report["cells"] for name in cell["latency"]):
        prices = {
            "learnable parameters": [cell["parameters"] for cell in report["cells"]],
            "drift at the default start (relative)": [drift(cell, "default") for cell in report["cells"]],
        }
        for price, values in prices.items():
            points = list(_points(report["cells"], provider, values))
            if len(points) > 1:
                yield f"Latency on {provider} against {price}", _scatter(points, price, provider)


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both price and latency, by price."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda each: (each.price, each.latency, each.number)):
        if not kept or point.latency < kept[-1].latency:
            kept.append(point)
    return kept


def _points(cells: Sequence[Mapping[str, Any]], provider: str, prices: Sequence[float | None]) -> Iterator[Point]:
    for number, (cell, price) in enumerate(zip(cells, prices, strict=True)):
        figures = latency(cell, provider)
        if figures is None or price is None:
            continue
        middle = figures["difference"]
        low, high = (middle if figures[end] is None else figures[end] for end in ("low", "high"))
        certain = figures["verdict"] in ("slower", "faster")
        yield Point(number, f"{cell['module']} at {cell['place']}", price, middle, low, high, certain)


def _scatter(points: Sequence[Point], price: str, provider: str) -> str:
    try:
        matplotlib, figures = import_module("matplotlib"), import_module("matplotlib.figure")
    except ImportError:
        raise MissingDependency('the plots need the extra report: pip install "graphsurgery[report]"') from None
    style = {"svg.fonttype": "none", "svg.hashsalt": f"{provider} {price}", "font.size": 11, "text.color": _INK}
    style |= {f"{part}.color": _INK for part in ("xtick", "ytick")}
    style |= {"axes.edgecolor": _INK, "axes.labelcolor": _INK, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser writes the text, with fonts of its own
        figure = figures.Figure(figsize=(5.2, 3.9))
        _draw(figure.add_axes((0.15, 0.14, 0.82, 0.83)), points, price, provider)
        written = StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata=_NO_METADATA)
    return _for_page(written.getvalue(), {point.number: point for point in points})


def _draw(axes: Any, points: Sequence[Point], price: str, provider: str) -> None:
    """Points with their intervals, hollow where the latency is no verdict, and the front as a line of steps."""
    best = front(points)
    prices = [point.price for point in points]
    positive = [value for value in prices if value > 0]
    if positive and max(prices) > 30 * min(positive):
        axes.set_xscale("symlog", linthresh=min(positive))
        axes.xaxis.get_major_locator().set_params(numticks=6)
    axes.axhline(0, color=_INK, linewidth=0.8, alpha=0.4)
    lows, highs = [point.low for point in points], [point.high for point in points]
    axes.vlines(prices, lows, highs, colors=_INK, linewidth=1, alpha=0.25)
    axes.step([p.price for p in best], [p.latency for p in best], where="post", color=_HOT, linewidth=1.5)
    for certain in (True, False):
        group = [point for point in points if point.certain is certain]
        faces = _HOT if certain else "none"
        drawn = axes.scatter(
            [p.price for p in group], [p.latency for p in group], s=42, c=faces, edgecolors=_HOT, zorder=3
        )
        drawn.set_urls([f"#cell-{point.number}" for point in group])
    for point in best[:_LABELS]:
        axes.annotate(
            point.name, (point.price, point.latency), (5, 6), textcoords="offset points", fontsize=9, parse_math=False
        )
    axes.xaxis.set_major_formatter(_tick)
    axes.yaxis.set_major_formatter(_tick)
    axes.set_xlabel(price)
    axes.set_ylabel(f"change of latency on {provider}, ms", parse_math=False)


def _tick(value: float, _position: int) -> str:
    """Plain text: matplotlib's own powers of ten are formulas, which take it ten times as long."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _for_page(svg: str, points: Mapping[int, Point]) -> str:
    """The element alone, with names on its links and without what would apply to the rest of the page."""

    def link(found: re.Match[str]) -> str:
        point = points[int(found[1])]
        name = html(f"{point.name}: {milliseconds(point.latency)}, {point.price:,.4g}")
        return f'<a href="#cell-{found[1]}" aria-label="{name}"><title>{name}</title>'

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = _LINK.sub(link, svg)
    for stand_in, colour in _COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg
