"""Identity of cells: a digest of all that their figures depend on, so that those of an earlier run can be kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import _version
from ..modelfile.external_data import real
from ..modelfile.model import ModelFile
from ..runtime.sample_inputs import image_paths
from ..weights.read import split
from .drift import Images
from .grid import Cell

_MACHINE = ("processor", "cores", "system", "python", "versions")


def keys(
    model: ModelFile, cells: Sequence[Cell], asked: Mapping[str, Any], images: Images, machine: Mapping[str, Any]
) -> list[str]:
    """For each cell, SHA-256 in hexadecimal over the model with its weights, the blocks and their own files, the
    settings, the images, the versions of packages and the machine.
    """
    common = {
        "graphsurgery": _version.__version__,
        "model": hashlib.sha256(model.to_bytes()).hexdigest(),
        "external": [_file(Path(real(name, model.folder or Path()))) for name in model.external_data],
        "settings": {name: value for name, value in asked.items() if name != "images"},
        "images": [_file(path) for path in image_paths(images.folder)] if images.folder else None,
        "machine": {name: machine[name] for name in _MACHINE},
        "gpus": [gpu["name"] for gpu in machine["gpus"]],
    }
    return [_digest({**common, "cell": cell.entries, "files": list(_files(cell))}) for cell in cells]


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def _files(cell: Cell) -> list[str]:
    """What a block's own ONNX file and its weights hold."""
    modules = [Path(each.module) for each in cell.requests]
    weights = [split(str(each.weights))[0] for each in cell.requests if each.weights]
    return [_file(path) for path in (*modules, *weights) if path.is_file()]


def _file(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()
