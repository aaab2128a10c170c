"""Set-up that all tests share. Markers and paths stand in pyproject.toml."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from itertools import compress

import pytest
from hypothesis import settings

from tests.pairwise import covering

# The same examples on every run, and none fails for being slow: the machine that runs the tests may be busy.
settings.register_profile("project", deadline=None, derandomize=True, database=None)
settings.load_profile("project")

MATRICES = pytest.StashKey[dict[str, list[tuple[dict[str, Hashable], bool]]]]()
"""Sampled test -> its cases, and whether CI runs each."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="K/N", help="only part K of the tests in N parts of about the same size")


@pytest.hookimpl(tryfirst=True)  # before the marks are looked at
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark `long` what pairs of values do not need of the tests that are marked `pairwise`; leave out other parts."""
    sample(config, items)
    if part := config.getoption("part"):
        number, parts = map(int, part.split("/"))
        here = [zlib.crc32(item.nodeid.encode()) % parts + 1 == number for item in items]
        config.hook.pytest_deselected(items=[item for item, is_here in zip(items, here, strict=True) if not is_here])
        items[:] = compress(items, here)


def sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    matrices: dict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("pairwise"):
            matrices[item.nodeid.partition("[")[0]].append(item)
    config.stash[MATRICES] = {}
    for name, functions in matrices.items():
        cases = [values_of(function) for function in functions]
        chosen = covering(cases)
        config.stash[MATRICES][name] = [(case, index in chosen) for index, case in enumerate(cases)]
        for index, function in enumerate(functions):
            if index not in chosen:
                function.add_marker(pytest.mark.long)


def values_of(function: pytest.Function) -> dict[str, Hashable]:
    """The values of a case by axis: its parameters, and of a parameter that is a dataclass the fields."""
    values: dict[str, object] = {}
    for name, value in function.callspec.params.items():
        if is_dataclass(value):
            values.update({f"{name}.{field.name}": getattr(value, field.name) for field in fields(value)})
        else:
            values[name] = value
    return {name: value if _hashable(value) else repr(value) for name, value in values.items()}


def _hashable(value: object) -> bool:
    """Whether it has a hash: unlike `Hashable` this also asks what a tuple holds."""
    try:
        hash(value)
    except TypeError:
        return False
    return True
