"""The YAML way against attach: what a block costs of the pretrained weights. Prints the table of docs/training.md:

    python -m tests.yaml_way

Every tensor of the original holds a number of its own, so that it is seen where its values arrive.
"""

from __future__ import annotations

import copy
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import intersect_dicts

from graphsurgery import torch as gt
from graphsurgery.weights.remapping import remap

Tensors = dict[str, torch.Tensor]

MODELS: dict[str, tuple[dict[str, int], str]] = {
    "yolov8n": ({"early": 2, "middle": 9, "late": 21}, "model.6.m.0"),
    "yolo11n": ({"early": 2, "middle": 10, "late": 22}, "model.6.m.0"),
    "yolo26n": ({"early": 2, "middle": 10, "late": 22}, "model.6.m.0"),
    "rtdetr-l": ({"early": 1, "middle": 12, "late": 27}, "model.5.m.1"),
}
"""model -> the layers after which the block is put, and a place inside of one"""
_SIZE = 160
_LAYER = re.compile(r"model\.(\d+)\.")


class SimAM(nn.Module):
    """What a user writes into the package; it has no weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@dataclass(frozen=True)
class Way:
    """One place in one model."""

    model: str
    place: str
    tensors: int
    attached: int
    """tensors that are in their place after attach"""
    by_name: int | None = None
    """tensors that Ultralytics loads into the edited YAML; None where a YAML has no such place"""
    misplaced: int | None = None
    """how many of these into a layer that is not theirs"""
    remapped: int | None = None
    """tensors that are in their layer after remap and load"""

    def __str__(self) -> str:
        counts = (self.by_name, self.misplaced, self.remapped)
        shown = ["-" if count is None else str(count) for count in counts]
        return f"| {self.model} | {self.place} | {self.tensors} | {' | '.join(shown)} | {self.attached} |"


HEADER = (
    "| model | block after | tensors | loaded by the edited YAML | of these misplaced "
    "| right with `remap` | right with `attach` |"
)


def ways(name: str) -> Iterator[Way]:
    """Every place in one model."""
    layers, inner = MODELS[name]
    document = tasks.yaml_model_load(f"{name}.yaml")
    original = _numbered(_built(document))
    state = {key: tensor.clone() for key, tensor in original.state_dict().items()}
    for where, layer in layers.items():
        kind = type(original.model[layer]).__name__
        loaded, misplaced, remapped = _edited(original, state, document, name, layer)
        attached = _attached(original, state, f"model.{layer}")
        yield Way(name, f"{where}: {layer} ({kind})", len(state), attached, loaded, misplaced, remapped)
    yield Way(name, f"inner: {inner.removeprefix('model.')}", len(state), _attached(original, state, inner))


def _built(document: dict[str, Any]) -> Any:
    transformer = any(row[2] == "RTDETRDecoder" for row in document["head"])
    kind = tasks.RTDETRDetectionModel if transformer else tasks.DetectionModel
    return kind(copy.deepcopy(document), ch=3, verbose=False)


def _numbered(model: Any) -> Any:
    with torch.no_grad():
        for number, tensor in enumerate(model.state_dict().values(), start=1):
            tensor.fill_(number)
    return model


def _edited(original: Any, state: Tensors, document: dict[str, Any], name: str, layer: int) -> tuple[int, int, int]:
    """(loaded by name, of these misplaced, right after remap) with a layer inserted behind another."""
    wanted = {_moved(key, layer): tensor for key, tensor in state.items()}
    with tempfile.TemporaryDirectory() as folder, _in_the_package(SimAM):
        layout, old, new = (Path(folder) / each for each in (f"{name}-simam.yaml", "old.pt", "new.pt"))
        layout.write_text(yaml.safe_dump(_inserted(document, layer)))
        torch.save({"epoch": -1, "model": original}, old)
        model = (RTDETR if name.startswith("rtdetr") else YOLO)(str(layout))
        hit = intersect_dicts(state, model.model.state_dict())
        misplaced = sum(not _is_at(wanted, key, tensor) for key, tensor in hit.items())
        found = remap(old, layout)
        if (found.by_name, found.misplaced) != (len(hit), misplaced):
            raise AssertionError(f"remap counts {found.by_name} and {found.misplaced}, not {len(hit)} and {misplaced}")
        new.write_bytes(found.data)
        model.load(str(new))
        after = model.model.state_dict()
        return len(hit), misplaced, sum(_is_at(after, key, tensor) for key, tensor in wanted.items())


def _attached(model: Any, state: Tensors, path: str) -> int:
    """How many old tensors load into the model with a block attached, each into its place."""
    model.eval()
    gt.attach(model, [{"module": "simam", "after": path}], torch.zeros(1, 3, _SIZE, _SIZE))
    model.load_state_dict({key: torch.zeros_like(tensor) for key, tensor in state.items()}, strict=False)
    refused = set(model.load_state_dict(state, strict=False).unexpected_keys)
    after = model.state_dict()
    right = sum(key not in refused and _is_at(after, key, tensor) for key, tensor in state.items())
    gt.detach(model)
    return right


def _is_at(tensors: Tensors, key: str, tensor: torch.Tensor) -> bool:
    return key in tensors and torch.equal(tensors[key], tensor)


def _moved(key: str, layer: int) -> str:
    """The name of a tensor where one more layer stands behind ``layer``."""
    return _LAYER.sub(lambda found: f"model.{int(found[1]) + (int(found[1]) > layer)}.", key, count=1)


def _inserted(document: dict[str, Any], layer: int) -> dict[str, Any]:
    """The YAML with a layer behind another, which all that read that read instead."""
    rows = copy.deepcopy(document["backbone"] + document["head"])
    found = []
    for index, (sources, *rest) in enumerate(rows):
        listed = sources if isinstance(sources, list) else [sources]
        absolute = [source if source >= 0 or source == -1 else index + source for source in listed]
        moved = [source + (source >= layer) for source in absolute]
        found.append([moved if isinstance(sources, list) else moved[0], *rest])
        if index == layer:
            found.append([-1, 1, "SimAM", []])
    cut = len(document["backbone"]) + (layer < len(document["backbone"]))
    kept = {key: value for key, value in document.items() if key not in ("scale", "yaml_file")}
    return {**kept, "backbone": found[:cut], "head": found[cut:]}


@contextmanager
def _in_the_package(block: type[nn.Module]) -> Iterator[None]:
    """As if a user had edited the file that parses the YAML."""
    setattr(tasks, block.__name__, block)
    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        delattr(tasks, block.__name__)


def table(rows: list[Way]) -> list[str]:
    """The lines of the table."""
    return [HEADER, "|---" * 7 + "|", *map(str, rows)]


if __name__ == "__main__":
    torch.manual_seed(0)
    print("\n".join(table([way for name in MODELS for way in ways(name)])))
