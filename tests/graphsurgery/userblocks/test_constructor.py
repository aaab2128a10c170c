"""What a card says of the constructor of a PyTorch module of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphsurgery
from graphsurgery.cards.cards import Card
from graphsurgery.errors import BlockError
from tests import models

PACKAGE = """
from __future__ import annotations
from torch import nn


class Plain(nn.Module):
    def forward(self, x):
        return x.sigmoid()


class Gate(Plain):
    def __init__(
        self, channels, reduction=4, act="relu", bias=True, rate=0.5, sizes=(3, 5), norm=None, depth: int = None
    ):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels // reduction, 1)


class Needs(Plain):
    def __init__(self, width, c2, heads: int, window, **options):
        super().__init__()
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "gates_of_mine.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("gates_of_mine", None)


def card(name: str) -> Card:
    return Card(f"gates_of_mine:{name}")


def hyper_parameters(name: str) -> list[str]:
    lines = list(card(name).lines())
    (first,) = [place for place, line in enumerate(lines) if "hyper-parameters" in line]
    return [lines[first], *(line for line in lines[first + 1 :] if line.startswith("  ") and " (" in line)]


def test_arguments_with_types_and_defaults() -> None:
    assert hyper_parameters("Gate") == [
        "hyper-parameters, for settings=",
        "  channels (whole number, not set): the channels of the site, unless it is given",
        "  reduction (whole number, default 4)",
        "  act (text, default relu)",
        "  bias (true or false, default true)",
        "  rate (number, default 0.5)",
        "  sizes (Python literal, default (3, 5))",
        "  norm (Python literal, not set)",
        "  depth (whole number, not set)",
    ]
    assert "gates_of_mine:Gate at 256 x 20 x 20" in card("Gate").lines()


def test_as_json() -> None:
    found = {each["name"]: each for each in card("Gate").to_json()["settings"]}
    assert found["reduction"] == {
        "name": "reduction",
        "type": "int",
        "default": 4,
        "doc": "",
        "required": False,
        **dict.fromkeys(("minimum", "above", "choices")),
    }
    assert (found["sizes"]["type"], found["sizes"]["default"]) == ("object", "(3, 5)")


def test_a_module_that_needs_more_is_described_and_not_tried() -> None:
    assert hyper_parameters("Needs") == [
        "hyper-parameters, for settings=",
        "  width (whole number, not set): the channels of the site, unless it is given",
        "  c2 (whole number, not set): the channels of the site, unless it is given",
        "  heads (whole number, required)",
        "  window (Python literal, required)",
        "  **options (Python literal, not set): any other name: it is passed on",
    ]
    assert "not tried: it needs heads, window" in card("Needs").lines()
    assert card("Needs").to_json()["facts"] == {}


def test_a_class_without_a_constructor() -> None:
    assert hyper_parameters("Plain")[0] == "no hyper-parameters"
    with pytest.raises(BlockError, match=r"^gates_of_mine:Plain has no argument 'size'; it has none$"):
        graphsurgery.insert(models.detector(), "gates_of_mine:Plain", after="/model.2", settings={"size": 3})
