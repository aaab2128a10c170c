"""Errors and warnings as Python objects: what their arguments, copies and pickles hold."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import pytest

from graphsurgery.errors import GraphSurgeryError, GraphSurgeryWarning, SelectorError, as_flag, option, spelled

Told = GraphSurgeryError | GraphSurgeryWarning


@pytest.mark.parametrize("kind", [SelectorError, GraphSurgeryWarning])
def test_arguments_are_what_a_python_user_reads(kind: type[Told]) -> None:
    error = kind(f"it exists; use {option('force', True)}")
    assert error.args == ("it exists; use force=True",)
    assert json.loads(json.dumps(error.args)) == [str(error)]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("kind", [SelectorError, GraphSurgeryWarning])
def test_a_copy_keeps_what_the_error_tells(kind: type[Told], copied: Callable[[Told], Told]) -> None:
    error = kind(f"no module there: {option('after')} names none", option="consumers", candidates=["/model.8"])
    found = copied(error)
    assert type(found) is kind
    assert spelled(found.message, as_flag) == "no module there: --after names none"
    assert (found.args, found.option, found.candidates) == (error.args, "consumers", ("/model.8",))
