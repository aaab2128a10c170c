"""Pairwise sampling: which cases of a matrix CI runs.

Nearly every mistake shows with one value of a parameter, or with two together. Cases that hold every pair of values
find it, and there are few of them: the size of the two largest axes multiplied, whatever the number of axes. `covering`
chooses them from cases that are listed; `combine` makes them where a list of all would be too long.

A test is sampled by `@pytest.mark.pairwise`: tests/conftest.py marks the cases that are not needed `long`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from itertools import combinations

Case = Mapping[str, Hashable]
"""Axis -> value."""
Pair = frozenset[tuple[str, Hashable]]
"""Two axes with a value each; one, where a case has only one axis."""


@dataclass(frozen=True)
class Rule:
    """Which values of some axes go together; asked with those values, in that order."""

    axes: tuple[str, ...]
    allows: Callable[..., bool]


def pairs(case: Case) -> set[Pair]:
    """Every pair of values of a case."""
    return {frozenset(chosen) for chosen in combinations(case.items(), min(2, len(case)))}


def covering(cases: Sequence[Case]) -> set[int]:
    """Choose cases that hold every pair of values which any of them holds.

    Always the case that adds most, of equals the first. What a case adds can only fall, so that one which still adds
    what it did when it was last looked at is the best.

    Returns
    -------
    set of int
        The positions of the chosen cases.
    """
    missing = set().union(*map(pairs, cases))
    ranked = [(-len(pairs(case)), index) for index, case in enumerate(cases)]
    heapify(ranked)
    chosen = set()
    while missing:
        gain, index = ranked[0]
        now = -len(pairs(cases[index]) & missing)
        if now != gain:
            heapreplace(ranked, (now, index))
            continue
        heappop(ranked)
        chosen.add(index)
        missing -= pairs(cases[index])
    return chosen


def combine(axes: Mapping[str, Sequence[Hashable]], rules: Sequence[Rule] = ()) -> list[dict[str, Hashable]]:
    """Make cases that hold every pair of values which the rules allow in any case.

    Parameters
    ----------
    axes:
        Axis -> its values. The larger axes should come first: their pairs decide how many cases there are.
    rules:
        What has to hold in every case.

    Returns
    -------
    list of dict
        The cases, the same on every call.
    """
    missing = {
        frozenset(((one, first), (other, second))): None
        for one, other in combinations(axes, 2)
        for first in axes[one]
        for second in axes[other]
    }
    cases = []
    while missing:
        seed = next(iter(missing))
        case = next(_completions(dict(seed), axes, rules, missing), None)
        if case is None:  # no case can hold this pair
            del missing[seed]
            continue
        cases.append({axis: case[axis] for axis in axes})
        for pair in pairs(case):
            missing.pop(pair, None)
    return cases


def _completions(
    case: dict[str, Hashable],
    axes: Mapping[str, Sequence[Hashable]],
    rules: Sequence[Rule],
    missing: Mapping[Pair, object],
) -> Iterator[dict[str, Hashable]]:
    """Every full case that begins so; those first whose next value adds most pairs."""
    if not all(rule.allows(*(case[axis] for axis in rule.axes)) for rule in rules if case.keys() >= set(rule.axes)):
        return
    axis = next((axis for axis in axes if axis not in case), None)
    if axis is None:
        yield case
        return

    def adds(value: Hashable) -> int:
        return sum(frozenset((chosen, (axis, value))) in missing for chosen in case.items())

    for value in sorted(axes[axis], key=adds, reverse=True):
        yield from _completions({**case, axis: value}, axes, rules, missing)
