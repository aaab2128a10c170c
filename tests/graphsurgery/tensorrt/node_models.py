"""The models of onnx.backend.test.case.node: what NVIDIA's parser and builder said of them, and what the table says.

verdicts.json holds what they said, with the wheel that was asked. disagreements.json holds every model that the table
judges otherwise, with the reason. A test with a wheel of its own at hand asks it about :func:`models` and compares by
:func:`differences`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from graphsurgery.tensorrt import check

REFUSED, BUILT, PARSED = "refused", "built", "parsed"
"""the parser refuses it; it is parsed and built; it is parsed, and the builder refuses it"""
VERSION = "11"
_FOLDER = Path(__file__).parent


@cache
def _data(name: str) -> Any:
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def asked() -> dict[str, str]:
    """What was asked: ``wheel``, ``library`` and ``onnx``, each with its version."""
    return {key: _data("verdicts")[key] for key in ("wheel", "library", "onnx")}


def recorded() -> dict[str, str]:
    """Name of a model -> REFUSED, BUILT or PARSED."""
    return {name: kind for kind in (REFUSED, BUILT, PARSED) for name in _data("verdicts")[kind]}


def reasons() -> dict[str, str]:
    """Name of a model that the table judges otherwise -> why."""
    return {name: group["reason"] for group in _data("disagreements") for name in group["models"]}


def models() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every model with its name, as the installed onnx makes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # divisions by zero, which some of the models are about
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    for case in cases:
        yield case.name.removeprefix("test_"), case.model


def is_taken(model: onnx.ModelProto) -> bool:
    """Whether the table takes a model."""
    return not check(model, VERSION).stops


def agrees(verdict: str, *, taken: bool) -> bool:
    """Whether the table judges like the parser and the builder. What is parsed and not built may be judged as either,
    but where the table refuses it, the reason has to be told.
    """
    return not taken if verdict == REFUSED else taken


def differences(verdicts: Mapping[str, str]) -> list[str]:
    """How verdicts of another wheel differ from those recorded: a line for each model, none where they are equal."""
    known = recorded()
    names = sorted({*known, *verdicts})
    pairs = ((name, known.get(name, "unknown"), verdicts.get(name, "not asked")) for name in names)
    return [f"{name}: {before}, and now {now}" for name, before, now in pairs if before != now]
