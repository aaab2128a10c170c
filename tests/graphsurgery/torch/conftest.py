"""Set-up of the tests of live models."""

from __future__ import annotations

import pytest

from graphsurgery.torch import model_check


@pytest.fixture
def sees_holders() -> None:
    """For tests of what attach says of an optimizer, or a wrapper, that holds the model already."""


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for these takes longer than all the rest on a small model, since every object there is is looked at."""
    if "sees_holders" not in request.fixturenames:
        monkeypatch.setattr(model_check, "_holders", lambda model: iter(()))
