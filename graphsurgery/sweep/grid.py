"""Grid: the cells of a sweep, each one block (or one combination of blocks) at one column of places."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from ..api import carry_out
from ..errors import RecipeError, as_flag
from ..insertion.splice import AppliedInsertion
from ..modelfile import yaml_text
from ..modelfile.model import ModelFile
from ..recipe import Recipe
from ..request import Request, Settings, arguments
from ..selection.sites import SiteFinder

STARTS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "gate": {"gate": "residual"},
    "calibrated": {"init": "calibrated"},
}
"""how the blocks begin for which drift is measured: what each differs in from the requests of a cell"""


@dataclass(frozen=True)
class Cell:
    """One row of the report."""

    module: str
    place: str
    """what the column is called: its selector, or the recipe of combinations"""
    requests: tuple[Request, ...]

    def put_in(
        self, finder: SiteFinder, start: str = "default", images: Path | None = None
    ) -> tuple[ModelFile, list[AppliedInsertion]]:
        """The finder's model with the blocks, and what was inserted. ``images``: what the calibrated start is measured
        on.
        """
        changes: dict[str, Any] = {**STARTS[start]}
        if start == "calibrated":
            changes["images"] = str(images)
        own = any(each.shapes for each in self.requests)  # which are of no concern to other cells
        requests = [replace(each, **changes) for each in self.requests]
        return carry_out(finder.model, requests, finder=None if own else finder)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The cell as entries of a recipe: what differs from the defaults."""
        return [_entry(each) for each in self.requests]

    @property
    def name(self) -> str:
        """Fit for a file."""
        return "-".join("".join(c if c.isalnum() else " " for c in f"{self.module} {self.place}").split())

    def command(self, model: str) -> str:
        """What makes the model of this cell in a shell; a combination is made from its recipe."""
        output = f"{Path(model).stem}-{self.name}.onnx"
        if len(self.requests) > 1:
            return shlex.join(["graphsurgery", "apply", f"{self.name}.yaml", model, "-o", output])
        (entry,) = self.entries
        words = ["graphsurgery", "insert", model]
        for key, value in entry.items():
            for one in _values(value):
                words += [as_flag(key, ""), one]
        return shlex.join([*words, "-o", output])


def grid(modules: Mapping[str, Settings], after: Sequence[str], common: Mapping[str, Any]) -> list[Cell]:
    """Every block, with its settings, at every column. ``common``: arguments of every request. RequestError for one
    that is wrong.
    """
    requests = (
        Request(module, after=(place,), settings=modules[module], **common)
        for place, module in product(dict.fromkeys(after), modules)
    )
    return [Cell(_label(each), each.after[0], (each,)) for each in requests]


def combinations(path: Path, common: Mapping[str, Any]) -> list[Cell]:
    """Every combination of a recipe in which ``module`` may be a list of alternatives.

    RecipeError for one that cannot be read.
    """
    try:
        document = yaml_text.parse(path.read_text("utf-8-sig"), path.name, "recipe", RecipeError)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text in UTF-8"
        raise RecipeError(f"the recipe {path} cannot be read: {reason}", option="together") from None
    if not isinstance(document, list) or not document or not all(isinstance(entry, dict) for entry in document):
        raise RecipeError(f"{path.name} is no list of insertions", option="together")
    choices = [
        entry["module"] if isinstance(entry.get("module"), list) else [entry.get("module")] for entry in document
    ]
    cells = []
    for chosen in product(*choices):
        entries = [{**common, **entry, "module": module} for entry, module in zip(document, chosen, strict=True)]
        requests = Recipe.of(entries).requests
        cells.append(Cell(" + ".join(map(_label, requests)), path.name, requests))
    return cells


def _label(request: Request) -> str:
    """The block with its settings."""
    return " ".join([request.module, *(f"{name}={value}" for name, value in request.settings.items())])


def _values(value: object) -> list[str]:
    """What stands behind the flag of an option, each time that it is given."""
    if isinstance(value, dict):
        return [f"{name}={each}" for name, each in value.items()]
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _entry(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, declared in arguments().items():
        value = getattr(request, name)
        if value != declared.default:
            plain = dict(value) if isinstance(value, Mapping) else value
            found[name] = list(plain) if isinstance(plain, tuple) else plain
    return found
