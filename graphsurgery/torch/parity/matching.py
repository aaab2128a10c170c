"""The distance between two tables, quantity by quantity; rows that form a set find their partners first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...feature_map import Array
from .layout import Layout, Quantity, Table, Wide

_PLAY = 4.0
"""how many times the largest error of matched scores two scores may differ by and still be a tie"""
_MOST_LEFT_OUT = 0.1
"""the share of rows that may be at the cut-off"""


@dataclass(frozen=True)
class Distance:
    """How far one quantity of the file is from the module's."""

    quantity: str
    unit: str
    error: float
    """the largest, in the unit; ``inf`` where one side is not a number, or where rows find no partner"""
    stated: float
    """what is permitted, rounding apart"""
    reordered: int = 0
    """how many rows stand elsewhere"""
    left_out: int = 0
    """how many rows are at the cut-off, where a tie decides which of two is among the model's outputs"""
    unpaired: int = 0
    """how many rows one side has more than the other"""


def distances(
    layout: Layout, actual: Sequence[Array], expected: Sequence[Array], widened: Mapping[str, float] | None = None
) -> list[Distance]:
    """Each quantity of a model's outputs, compared. ``widened``: what is permitted where that is more than stated."""
    found: list[Distance] = []
    for table in layout.tables:
        found += _compared(table, table.read(actual), table.read(expected), widened or {})
    return found


def _compared(table: Table, actual: Wide, expected: Wide, widened: Mapping[str, float]) -> list[Distance]:
    quantities = table.quantities
    stated = [each.stated(each.values(expected)) for each in quantities]
    if not table.matched:
        errors = [_largest(each.values(actual), each.values(expected)) for each in quantities]
        return [_distance(*each) for each in zip(quantities, errors, stated, strict=True)]
    permitted = [max(own, widened.get(each.name, 0.0)) for each, own in zip(quantities, stated, strict=True)]
    worst, reordered, left_out, unpaired = [0.0] * len(quantities), 0, 0, 0
    for a, b in zip(actual, expected, strict=True):
        with np.errstate(invalid="ignore"):  # infinities on both sides
            pairs = _pairs(quantities, permitted, a, b)
        pairs, out = _without_ties(table, permitted, a, b, pairs)
        unpaired += abs(len(a) - len(b))
        left_out += out
        reordered += sum(i != j for i, j in pairs)
        rows, others = a[[i for i, _ in pairs]], b[[j for _, j in pairs]]
        worst = [max(w, _largest(q.values(rows), q.values(others))) for w, q in zip(worst, quantities, strict=True)]
    if unpaired:
        worst = [np.inf] * len(worst)
    return [
        _distance(quantity, error, limit, reordered, left_out, unpaired)
        for quantity, error, limit in zip(quantities, worst, stated, strict=True)
    ]


def _distance(
    quantity: Quantity, error: float, stated: float, reordered: int = 0, left_out: int = 0, unpaired: int = 0
) -> Distance:
    return Distance(quantity.name, str(quantity.unit), error, stated, reordered, left_out, unpaired)


def _largest(actual: Wide, expected: Wide) -> float:
    """The largest difference; inf where one side is infinite or not a number and the other is not."""
    if not actual.size:
        return 0.0
    agree = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        error = np.where(agree, 0.0, np.abs(actual - expected))
    return float(np.where(np.isnan(error), np.inf, error).max())


def _pairs(
    quantities: Sequence[Quantity], permitted: Sequence[float], actual: Wide, expected: Wide
) -> list[tuple[int, int]]:
    """Partners among the rows [N, C] of both sides: those at one place that agree; of the others the nearest first."""
    both = min(len(actual), len(expected))
    same = np.zeros(both)
    for quantity, limit in zip(quantities, permitted, strict=True):
        gap = np.abs(quantity.values(actual[:both]) - quantity.values(expected[:both])).max(axis=1)
        np.maximum(same, _shares(gap, limit), out=same)
    pairs = [(i, i) for i in range(both) if same[i] <= 1]
    left, right = _others(len(actual), (i for i, _ in pairs)), _others(len(expected), (j for _, j in pairs))
    cost = np.zeros((len(left), len(right)))
    for quantity, limit in zip(quantities, permitted, strict=True):
        a, b = quantity.values(actual[left]), quantity.values(expected[right])
        for column in range(a.shape[1]):
            np.maximum(cost, _shares(np.abs(a[:, None, column] - b[None, :, column]), limit), out=cost)
    rows, columns = np.unravel_index(np.argsort(cost, axis=None, kind="stable"), cost.shape)
    free_rows, free_columns = set(range(len(left))), set(range(len(right)))
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        if i in free_rows and j in free_columns:
            free_rows.discard(i)
            free_columns.discard(j)
            pairs.append((left[i], right[j]))
    return sorted(pairs)


def _shares(gap: Wide, limit: float) -> Wide:
    """Differences as shares of what is permitted; of whole numbers, which may not differ, a million for each."""
    shares: Wide = np.nan_to_num(gap / limit if limit else gap * 1e6, nan=np.inf, posinf=np.inf)
    return shares


def _others(count: int, taken: Iterable[int]) -> list[int]:
    known = set(taken)
    return [index for index in range(count) if index not in known]


def _without_ties(
    table: Table, permitted: Sequence[float], actual: Wide, expected: Wide, pairs: list[tuple[int, int]]
) -> tuple[list[tuple[int, int]], int]:
    """The pairs without those that are none, but two rows at the cut-off, of which each side chose another one.

    Both have the lowest score that was chosen at all, to within what the scores of real partners differ by.
    """
    if table.ranked is None or not pairs:
        return pairs, 0
    far = [
        any(
            _largest(q.values(actual[i]), q.values(expected[j])) > limit
            for q, limit in zip(table.quantities, permitted, strict=True)
        )
        for i, j in pairs
    ]
    ours, theirs = (side[:, table.ranked] for side in (actual, expected))
    known = [abs(ours[i] - theirs[j]) for (i, j), apart in zip(pairs, far, strict=True) if not apart]
    lowest = float(theirs.min()) + _PLAY * max(known, default=0.0)
    tied = [apart and bool(ours[i] <= lowest and theirs[j] <= lowest) for (i, j), apart in zip(pairs, far, strict=True)]
    if all(tied) or sum(tied) > max(1, _MOST_LEFT_OUT * len(pairs)):
        return pairs, 0
    return [pair for pair, out in zip(pairs, tied, strict=True) if not out], sum(tied)
