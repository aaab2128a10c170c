"""A sentence in the architecture of a model with attached blocks, at which Ultralytics' own training stops.

Its trainer builds the model anew from ``model.yaml``, and would drop the blocks without a word. The name of the first
layer's class there is followed by the sentence: no such class is found, and the error says it. Nothing but building a
model reads these names, so that predicting, validating and exporting work as ever.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

SENTENCE = (
    ": the model has blocks of graphsurgery attached, which Ultralytics alone would drop; "
    "train it with YOLO or RTDETR of graphsurgery.torch.ultralytics"
)
_CLASS = 2
"""where the name of the class stands in a row"""


def set_guard(model: Any) -> None:
    """Put the sentence into the architecture of a model of Ultralytics."""
    remove_guard(model)
    row = next(_rows(model.yaml))
    row[_CLASS] += SENTENCE


def remove_guard(model: Any) -> None:
    """Take it out again."""
    model.yaml = restored(model.yaml)


def restored(cfg: Any) -> Any:
    """A copy of an architecture without the sentence; the path of one, and None, as they are."""
    if not isinstance(cfg, dict):
        return cfg
    cfg = copy.deepcopy(cfg)
    for row in _rows(cfg):
        row[_CLASS] = str(row[_CLASS]).removesuffix(SENTENCE)
    return cfg


def _rows(cfg: dict[str, Any]) -> Iterator[list[Any]]:
    yield from cfg["backbone"]
    yield from cfg["head"]
