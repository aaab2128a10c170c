"""Columns of the page's table: what each shows of a cell of the report, and by what it is sorted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from .text import activation, count, milliseconds, share, signed, size

Cell = Mapping[str, Any]
Key = str | float | None


@dataclass(frozen=True)
class Column:
    """One column: its title, the key by which it is sorted (None: last), and its text."""

    title: str
    key: Callable[[Cell], Key]
    text: Callable[[Cell], str]
    numeric: bool = True
    printed: bool = True
    """whether paper has room for it; report.csv has every figure"""


def columns(report: Mapping[str, Any]) -> list[Column]:
    """The columns for what a report holds; those of latency and drift for each provider and start."""
    cells = report["cells"]
    providers = list(
        dict.fromkeys([*report["settings"]["providers"], *(name for cell in cells for name in cell["latency"])])
    )
    starts = list(dict.fromkeys(name for cell in cells for name in cell["drift"]))
    found = [
        _words("Block", lambda cell: str(cell["module"])),
        _words("Place", lambda cell: str(cell["place"])),
        _words("State", _state),
    ]
    if report["budgets"]:
        found.append(Column("Budget", lambda cell: cell["rank"], _budget, numeric=False))
    found += [_latency(name) for name in providers]
    found += [
        _number("Parameters", "parameters", count),
        _number("Nodes", "nodes", count),
        _number("MACs of block", "block_macs", count),
        Column("Largest activation", lambda cell: (cell["largest_activation"] or {}).get("bytes"), _activation),
        _number("File growth", "growth", size),
    ]
    found += [column for start in starts for column in _drift(start, cells)]
    return [*found, *_deployment()]


def latency(cell: Cell, provider: str) -> dict[str, Any] | None:
    """The figures of a cell on one provider, if it was timed there."""
    figures = cell["latency"].get(provider)
    return figures if figures and figures["difference"] is not None else None


def drift(cell: Cell, start: str, figure: str = "relative") -> float | None:
    """A figure of the drift at one start, if it was measured."""
    value = (cell["drift"].get(start) or {}).get(figure)
    return None if value is None else float(value)


def _words(title: str, text: Callable[[Cell], str]) -> Column:
    return Column(title, text, text, numeric=False)


def _number(title: str, name: str, text: Callable[[int | None], str]) -> Column:
    return Column(title, lambda cell: cell[name], lambda cell: text(cell[name]))


def _state(cell: Cell) -> str:
    reason = cell["reason"].partition("\n")[0]  # what follows points into the selector; it is shown with the places
    return f"{cell['state']}: {reason}" if reason else str(cell["state"])


def _budget(cell: Cell) -> str:
    if cell["fits"]:
        return "fits" if cell["rank"] is None else f"fits, rank {cell['rank']}"
    return "; ".join(cell["misses"]) or ("" if cell["fits"] is None else "does not fit")


def _activation(cell: Cell) -> str:
    return activation(cell["largest_activation"])


def _latency(provider: str) -> Column:
    def key(cell: Cell) -> Key:
        figures = latency(cell, provider)
        return None if figures is None else float(figures["difference"])

    def text(cell: Cell) -> str:
        figures = latency(cell, provider)
        if figures is None:
            return ""
        parts = [milliseconds(figures["difference"])]
        if figures["low"] is not None and figures["high"] is not None:
            parts.append(f"[{signed(figures['low'])}, {signed(figures['high'])}]")
        if figures["relative"] is not None:
            parts[0] += f", {100 * figures['relative']:+.1f} %"
        return "\n".join([*parts, figures["verdict"]])

    return Column(f"Latency ({provider})", key, text)


def _drift(start: str, cells: list[Cell]) -> Iterator[Column]:
    """The relative error of the raw outputs, and what became of the detections where these are known."""

    def relative(cell: Cell) -> str:
        return share(drift(cell, start)) or str((cell["drift"].get(start) or {}).get("reason") or "")

    yield Column(f"Drift ({start})", lambda cell: drift(cell, start), relative)
    if all(drift(cell, start, "boxes") is None for cell in cells):
        return

    def changed(cell: Cell) -> str:
        number, of = (drift(cell, start, name) for name in ("changed", "detections"))
        return "" if number is None else f"{number:,.0f}" + ("" if of is None else f" of {of:,.0f}")

    texts = {"boxes": _significant(start, "boxes"), "scores": _significant(start, "scores"), "changed": changed}
    for figure, title in (("boxes", "Boxes, px"), ("scores", "Scores"), ("changed", "Changed")):
        key = partial(drift, start=start, figure=figure)
        yield Column(f"{title} ({start})", key, texts[figure], printed=start == "default")


def _significant(start: str, figure: str) -> Callable[[Cell], str]:
    def text(cell: Cell) -> str:
        value = drift(cell, start, figure)
        return "" if value is None else f"{value:.3g}"

    return text


def _deployment() -> list[Column]:
    return [
        _words("Parity", _parity),
        _words("float16", lambda cell: str((cell["float16"] or {}).get("verdict") or "")),
        _words("TensorRT", _tensorrt),
        _words("Not on a DLA", lambda cell: ", ".join(cell["dla"])),
    ]


def _parity(cell: Cell) -> str:
    parity = cell["parity"] or {}
    if parity.get("passed") is None:
        return str(parity.get("sentence") or "")
    furthest = "" if parity["max_abs"] is None else f", {parity['max_abs']:.1e}"
    return ("passed" if parity["passed"] else "FAILED") + furthest


def _tensorrt(cell: Cell) -> str:
    taken = [version for version, each in cell["tensorrt"].items() if each["takes"]]
    refused = [f"not {version}: {each['sentence']}" for version, each in cell["tensorrt"].items() if not each["takes"]]
    return "; ".join([", ".join(taken), *refused] if taken else refused)
