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
