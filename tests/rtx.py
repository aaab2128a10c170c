"""NVIDIA's parser in tests: a fake of its libraries in their place, and the libraries themselves where they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphsurgery.errors import EnvironmentLacks
from graphsurgery.tensorrt.rtx import asking, child
from graphsurgery.tensorrt.rtx.libraries import Libraries, find

FAKE = Path(__file__).with_name("fake_rtx.py")
Fake = Callable[..., None]


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put the fake libraries in place, which behave as the keywords say; see fake_rtx.py."""

    def install(**spoken: Any) -> None:
        monkeypatch.setenv("FAKE_RTX", json.dumps(spoken))
        monkeypatch.setattr(child, "command", lambda: [sys.executable, str(FAKE)])
        monkeypatch.setattr(asking, "find", lambda: Libraries(Path("runtime"), Path("parser"), "1.7.1"))
        monkeypatch.setenv("PYTHONPATH", str(FAKE.parents[1]))

    return install


@pytest.fixture
def no_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which NVIDIA's parser is not installed."""
    monkeypatch.setattr("graphsurgery.tensorrt.rtx.libraries.find_spec", lambda name: None)


def _missing() -> str:
    try:
        find()
    except EnvironmentLacks as error:
        return str(error)
    return ""


needs_rtx = pytest.mark.skipif(bool(_missing()), reason=_missing())
"""for tests of the libraries themselves"""
