"""What CI runs of the matrices holds every pair of values."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import MATRICES
from tests.pairwise import Rule, combine, covering


def held(cases: Sequence[dict[str, Hashable]]) -> set[tuple[Hashable, ...]]:
    """(axis, value, axis, value) that stand in a case together."""
    return {(*one, *other) for case in cases for one, other in combinations(sorted(case.items(), key=str), 2)}


small_cases = st.lists(st.tuples(*[st.integers(0, 3)] * 4).map(lambda row: dict(zip("abcd", row, strict=True))))


@given(small_cases)
def test_what_is_chosen_holds_every_pair_that_the_cases_hold(cases: list[dict[str, Hashable]]) -> None:
    chosen = covering(cases)
    assert held([cases[index] for index in chosen]) == held(cases)
    assert chosen == covering(cases)


def test_few_are_chosen() -> None:
    everything = [dict(zip("abcde", row, strict=True)) for row in product(range(4), repeat=5)]
    assert 16 <= len(covering(everything)) < 32 < len(everything)
    assert len(combine({axis: range(4) for axis in "abcde"})) < 32


def test_where_there_is_one_axis_all_are_chosen() -> None:
    assert covering([{"a": 0}, {"a": 1}, {"a": 2}]) == {0, 1, 2}


@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))))
def test_what_is_made_holds_every_pair_that_the_rules_allow(forbidden: set[tuple[int, ...]]) -> None:
    axes = {"a": range(3), "b": range(3), "c": range(2), "d": range(2)}
    made = combine(axes, [Rule(("b", "a", "c"), lambda b, a, c: (b, a, c) not in forbidden)])
    rows = (dict(zip(axes, row, strict=True)) for row in product(*axes.values()))
    assert held(made) == held([row for row in rows if (row["b"], row["a"], row["c"]) not in forbidden])


def test_ci_runs_every_pair_of_every_matrix(request: pytest.FixtureRequest) -> None:
    """Of those that were collected along with this test: in CI, all that there are."""
    matrices = request.config.stash[MATRICES]
    for name, cases in matrices.items():
        run = [values for values, is_run in cases if is_run]
        everything = [values for values, _ in cases]
        assert held(run) == held(everything), name
        assert {item for case in run for item in case.items()} == {item for case in everything for item in case.items()}
