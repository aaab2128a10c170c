"""The search for circular garbage is off in the body alone, and left as it was."""

from __future__ import annotations

import gc
import inspect

import pytest

from graphsurgery.cli.sites import sites
from graphsurgery.process.garbage import uncollected


def test_it_is_on_again_behind_the_body_even_after_an_error() -> None:
    @uncollected()
    def fails() -> None:
        assert not gc.isenabled()
        raise ValueError("in the body")

    with pytest.raises(ValueError, match="in the body"):
        fails()
    assert gc.isenabled()


def test_it_stays_off_where_it_was_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_command_keeps_its_options() -> None:
    assert {"model", "selector", "depth", "every"} <= inspect.signature(sites).parameters.keys()


def test_what_the_body_kept_is_not_searched_at_once() -> None:
    searched = list[int]()
    gc.collect()
    gc.callbacks.append(lambda phase, found: searched.append(found["generation"]) if phase == "start" else None)
    try:
        with uncollected():
            kept = [[each] for each in range(10 * gc.get_threshold()[0])]
        kept.append([0])
        assert not searched
        assert not gc.get_freeze_count()
    finally:
        gc.callbacks.pop()


def test_what_was_frozen_stays_so() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with uncollected():
            pass
        assert gc.get_freeze_count() == frozen
    finally:
        gc.unfreeze()
