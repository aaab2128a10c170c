"""Layout: which numbers of a model's outputs are boxes in pixels, scores or something else, and what they may be off.

An output is read as a table [B, N, C]: N rows (predictions) of C columns. The columns make up quantities, each of which
is compared on its own, in its own unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...feature_map import Array

Wide: TypeAlias = npt.NDArray[np.float64]
Columns: TypeAlias = slice | tuple[int, ...]

PIXELS = 5e-3
"""what a coordinate may be off, in pixels of the model's input"""
SHARE = 1e-5
"""what anything else may be off, as a share of the largest value; scores of 1 may be off by as much"""
SMALLEST_SCORE = 0.05
"""what the largest score counts as at least: the Sigmoid of onnxruntime is off by up to 1.7e-7, however small it is"""
_TINY = 1e-12


class Unit(str, Enum):
    """What a quantity is measured in."""

    __str__ = str.__str__

    PIXELS = "px"
    SCORES = "score"
    OWN = "own scale"
    """the largest value of the output is 1"""
    EXACT = "exact"
    """whole numbers, which are the same or not"""


@dataclass(frozen=True)
class Quantity:
    """Some columns of a table."""

    name: str
    unit: Unit
    columns: Columns
    scale: float | tuple[float, ...] = 1.0
    """what a value, or the value in each column, is multiplied by to be in the unit"""

    def values(self, rows: Wide) -> Wide:
        """[B, N, columns] in the unit, of a table [B, N, C]."""
        chosen: Wide = rows[..., self.columns] if isinstance(self.columns, slice) else rows[..., list(self.columns)]
        scaled: Wide = chosen * np.asarray(self.scale)
        return scaled

    def stated(self, expected: Wide) -> float:
        """What a value may be off, given the module's ``values``, rounding apart."""
        if self.unit is Unit.PIXELS:
            return PIXELS
        if self.unit is Unit.EXACT:
            return 0.0
        finite = expected[np.isfinite(expected)]
        peak = float(np.abs(finite).max(initial=0.0))
        return SHARE * min(max(peak, SMALLEST_SCORE), 1.0) if self.unit is Unit.SCORES else SHARE * max(peak, _TINY)


@dataclass(frozen=True)
class Table:
    """Outputs of a model that are read as one table."""

    outputs: tuple[int, ...]
    """which of the model's outputs, whose columns stand side by side"""
    quantities: tuple[Quantity, ...]
    rows: Callable[[Array], Array]
    """an output -> [B, N, C]"""
    matched: bool = False
    """whether the rows are a set, the order of which says nothing: what was chosen by its score, say"""
    ranked: int | None = None
    """the column whose largest values the rows were chosen by; None where no column tells"""

    def read(self, outputs: Sequence[Array]) -> Wide:
        """[B, N, C] of a model's outputs."""
        parts = [self.rows(np.asarray(outputs[index], np.float64)) for index in self.outputs]
        return np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Layout:
    """How all outputs of a model are read, and how that is known."""

    tables: tuple[Table, ...]
    known_from: str
    """how it is known what the outputs are"""
    lines: tuple[str, ...]
    """what each output is taken as"""

    def largest_score(self, outputs: Sequence[Array]) -> float | None:
        """The largest score in a model's outputs; None where it is not known which are scores."""
        values = [
            each.values(table.read(outputs))
            for table in self.tables
            for each in table.quantities
            if each.unit is Unit.SCORES
        ]
        return max((float(each.max(initial=0.0)) for each in values), default=None)


def as_rows(array: Array) -> Array:
    """[B, N, C] as it is."""
    return array


def transposed(array: Array) -> Array:
    """[B, N, C] of an output [B, C, N]."""
    turned: Array = array.transpose(0, 2, 1)
    return turned


def flat(array: Array) -> Array:
    """All numbers of an output as one row."""
    return array.reshape(1, 1, -1)


def by_scale(
    names: Sequence[str], outputs: Sequence[Array], chosen: Sequence[bool], first: int = 0
) -> tuple[list[Table], list[str]]:
    """Tables of outputs about which nothing is known but their names, and what they are taken as.

    ``chosen``: whether an output depends on a choice by score (TopK, NonMaxSuppression). Outputs that do and have the
    same number of rows are one table whose rows are matched. ``first``: the position of the first output among all.
    """
    tables: list[Table] = []
    lines: list[str] = []
    together: dict[tuple[int, ...], list[int]] = {}
    for index, output in enumerate(outputs):
        if chosen[index] and output.ndim > 1:
            together.setdefault(output.shape[:2], []).append(index)
            continue
        unit = Unit.OWN if output.dtype.kind == "f" else Unit.EXACT
        quantity = Quantity(names[index], unit, slice(None))
        tables.append(Table((first + index,), (quantity,), flat))
        lines.append(f"{names[index]}: {_scale(unit)}")
    for members in together.values():
        quantities, start = list[Quantity](), 0
        for index in members:
            width = int(np.prod(outputs[index].shape[2:]))
            unit = Unit.OWN if outputs[index].dtype.kind == "f" else Unit.EXACT
            quantities.append(Quantity(names[index], unit, slice(start, start + width)))
            lines.append(f"{names[index]}: {_scale(unit)}; rows that the model chose by score, in any order")
            start += width
        whole = tuple(first + index for index in members)
        tables.append(Table(whole, tuple(quantities), _widened, matched=True))
    return tables, lines


def _widened(array: Array) -> Array:
    """[B, N, C] of an output [B, N, ...]."""
    return array.reshape(*array.shape[:2], -1)


def _scale(unit: Unit) -> str:
    return "by its own scale" if unit is Unit.OWN else "whole numbers"
