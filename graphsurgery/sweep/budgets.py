"""Budgets: what a cell may cost, which cells keep to that, and which of them is best."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError, option
from ..messages import closest

_Cell = Mapping[str, Any]
_UNITS = {"": 1.0, "%": 0.01, "k": 1e3, "M": 1e6, "G": 1e9, "ms": 1.0, "px": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_LIMIT = re.compile(r"(\d+(?:\.\d+)?(?:e-?\d+)?)\s*([A-Za-z%]*)")


def _worst(cell: _Cell, key: str) -> float | None:
    """Over all providers."""
    found = [each[key] for each in cell["latency"].values()]
    return max(found) if found else None


_NUMBERS: Mapping[str, tuple[Callable[[_Cell, str], float | None], tuple[str, ...]]] = {
    "latency": (lambda c, unit: _worst(c, "relative" if unit == "%" else "difference"), ("%", "ms")),
    "params": (lambda c, _: c["parameters"], ("", "k", "M", "G")),
    "nodes": (lambda c, _: c["nodes"], ("", "k")),
    "macs": (lambda c, _: c["block_macs"], ("", "k", "M", "G")),
    "activation": (lambda c, _: (c["largest_activation"] or {}).get("bytes"), ("kB", "MB", "GB")),
    "growth": (lambda c, _: c["growth"], ("kB", "MB", "GB")),
    "drift": (lambda c, _: c["drift"]["default"]["relative"], ("%", "")),
    "boxes": (lambda c, _: c["drift"]["default"]["boxes"], ("px",)),
}
"""name -> the figure of a cell, and the units that a limit of it has"""
_FACTS: Mapping[str, Callable[[_Cell], bool]] = {
    "float16": lambda c: c["float16"]["verdict"] == "safe",
    "tensorrt": lambda c: all(each["takes"] for each in c["tensorrt"].values()),
    "dla": lambda c: not c["dla"],
    "parity": lambda c: bool(c["parity"]["passed"]),
}


@dataclass(frozen=True)
class Budget:
    """One limit."""

    text: str
    name: str
    limit: float | None = None
    unit: str = ""

    @classmethod
    def of(cls, text: str) -> Budget:
        """From ``latency=5%``, ``params=50k``, ``float16`` ... RequestError for anything else."""
        name, equals, value = (part.strip() for part in text.partition("="))
        known = [*_NUMBERS, *_FACTS]
        if name not in known:
            raise RequestError(
                f"there is no budget {name!r}; it is one of {', '.join(known)}",
                option="budget",
                candidates=closest(name, known) or known,
            )
        if name in _FACTS:
            if equals:
                raise RequestError(f"{option('budget')} {name} takes no value", option="budget")
            return cls(text, name)
        units = _NUMBERS[name][1]
        match = _LIMIT.fullmatch(value)
        if not match or match[2] not in units:
            usual = " or ".join(f"{name}=5{unit}" for unit in units)
            raise RequestError(f"{option('budget')} {name} is written {usual}, not {text!r}", option="budget")
        return cls(text, name, float(match[1]) * _UNITS[match[2]], match[2])

    def miss(self, cell: _Cell) -> str | None:
        """Why a cell does not keep to it; None if it does."""
        if self.name in _FACTS:
            return None if _FACTS[self.name](cell) else f"not {self.name}"
        found = _NUMBERS[self.name][0](cell, self.unit)
        if found is None:
            return f"{self.name} is not known"
        assert self.limit is not None
        if found <= self.limit:
            return None
        return f"{self.name} {found / _UNITS[self.unit]:.3g}{self.unit} > {self.limit / _UNITS[self.unit]:g}{self.unit}"


def mark(cells: Sequence[dict[str, Any]], budgets: Sequence[Budget]) -> None:
    """Set "fits", "misses" and "rank" of every cell.

    The best of those that fit is the fastest, where its latency differs by more than noise; then the one with the
    fewest parameters, then the one whose outputs drift least.
    """
    for cell in cells:
        done = cell["state"] == "done"
        misses = [why for each in budgets if (why := each.miss(cell))] if done else []
        known = bool(budgets) and cell["state"] in ("done", "failed")
        cell.update(misses=misses, fits=done and not misses if known else None, rank=None)
    fitting = [cell for cell in cells if cell["state"] == "done" and not cell["misses"]]
    for rank, cell in enumerate(sorted(fitting, key=_order), start=1):
        cell["rank"] = rank


def _order(cell: _Cell) -> tuple[float, ...]:
    told = [each["difference"] for each in cell["latency"].values() if each["verdict"] in ("slower", "faster")]
    drift = cell["drift"]["default"]["relative"]
    return max(told, default=0.0), cell["parameters"], float("inf") if drift is None else drift
