"""Rows: a report as one flat dictionary a cell, for programs, and as a table of texts, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..messages import printable

_SIMPLE = ("module", "place", "state", "reason", "parameters", "nodes", "block_macs", "model_macs", "growth")
_LAST = ("fits", "rank", "command", "key")
SHOWN = ["block", "place", "parameters", "MACs", "latency", "drift", "boxes", "parity", "float16", "rank"]
"""the headers of :func:`shown`"""
COMPACT = ["block", "place", "parameters", "nodes", "MACs", "drift", "latency"]
"""the headers of :func:`compact`"""
_UNITS = ("", " k", " M", " G", " T")


def rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One dictionary a cell; what is nested in the report has a name of its parts, such as ``latency_cpu_low``."""
    return [_flat(cell) for cell in report["cells"]]


def _flat(cell: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: cell[name] for name in _SIMPLE}
    found["largest_activation"] = (cell["largest_activation"] or {}).get("bytes")
    for provider, figures in cell["latency"].items():
        found |= {f"latency_{provider}_{name}": value for name, value in figures.items()}
    for start, figures in cell["drift"].items():
        found |= {f"drift_{start}_{name}": value for name, value in figures.items()}
    found["parity"] = (cell["parity"] or {}).get("passed")
    found["float16"] = (cell["float16"] or {}).get("verdict")
    found |= {f"tensorrt_{version}": each["takes"] for version, each in cell["tensorrt"].items()}
    return {**found, "dla": " ".join(cell["dla"]), "misses": "; ".join(cell["misses"])} | {n: cell[n] for n in _LAST}


def shown(report: Mapping[str, Any]) -> list[list[str]]:
    """The cells of a table with the headers :data:`SHOWN`."""
    return [[printable(text) for text in _shown(cell)] for cell in report["cells"]]


def compact(cell: Mapping[str, Any]) -> list[str]:
    """A cell in a line with the headers :data:`COMPACT`, while the sweep runs."""
    return [printable(text) for text in _compact(cell)]


def _compact(cell: Mapping[str, Any]) -> list[str]:
    begin = [cell["module"], cell["place"]]
    if cell["parameters"] is None:
        return [*begin, "", "", "", "", cell["reason"] or cell["state"]]
    return [
        *begin,
        _rounded(cell["parameters"]),
        f"{cell['nodes']:,}",
        _rounded(cell["block_macs"]),
        _drift(cell),
        _latency(cell, interval=False) if cell["state"] != "failed" else cell["reason"],
    ]


def _rounded(number: int | None) -> str:
    """A count with three digits and a unit."""
    if number is None:
        return "?"
    amount, unit = float(number), 0
    while abs(amount) >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.3g}{_UNITS[unit]}"


def _shown(cell: Mapping[str, Any]) -> list[str]:
    begin = [cell["module"], cell["place"]]
    if cell["parameters"] is None:
        return [*begin, cell["reason"] or cell["state"], *[""] * (len(SHOWN) - 3)]
    boxes = cell["drift"]["default"]["boxes"]
    return [
        *begin,
        f"{cell['parameters']:,}",
        "?" if cell["block_macs"] is None else f"{cell['block_macs']:,}",
        _latency(cell) if cell["state"] != "failed" else cell["reason"],
        _drift(cell),
        "" if boxes is None else f"{boxes:.1f} px",
        {True: "passed", False: "FAILED", None: "not compared"}[cell["parity"]["passed"]],
        cell["float16"]["verdict"],
        "; ".join(cell["misses"]) or str(cell["rank"] or ""),
    ]


def _drift(cell: Mapping[str, Any]) -> str:
    relative = cell["drift"]["default"]["relative"]
    return "?" if relative is None else f"{relative:.2%}"


def _latency(cell: Mapping[str, Any], *, interval: bool = True) -> str:
    said = []
    for provider, figures in cell["latency"].items():
        where = f"{provider}: " if len(cell["latency"]) > 1 else ""
        limits = f" ({figures['low']:+.2f} ... {figures['high']:+.2f})" if interval else ""
        said.append(f"{where}{figures['difference']:+.2f} ms{limits}, {figures['verdict']}")
    return "; ".join(said) or "not timed yet"
