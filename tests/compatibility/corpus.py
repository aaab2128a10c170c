"""Where the corpus lies, what its index says, and how results are compared with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import graphsurgery as gsx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOSTS, MADE, RECIPES, OWN, WEIGHTS, IMAGES = (
    HERE / name for name in ("hosts", "made", "recipes", "own", "weights", "images")
)
INDEX = HERE / "index.json"
EXAMPLE = "example"
"""the committed detector of the example, too large to keep results of: they are kept as SHA-256"""
TRUSTED = ("own_blocks:ChannelScale",)


class Entry(NamedTuple):
    """A recipe and the model that it is for."""

    host: str
    name: str

    @property
    def key(self) -> str:
        return f"{self.host}/{self.name}"

    @property
    def recipe(self) -> Path:
        return RECIPES / self.host / f"{self.name}.yaml"

    @property
    def made(self) -> Path:
        """The recorded result; not there for the example, of which only the hash is kept."""
        return MADE / self.host / f"{self.name}.onnx"


def entries() -> Iterator[Entry]:
    """Every recipe of the corpus, in the order of their names."""
    for path in sorted(RECIPES.glob("*/*.yaml")):
        yield Entry(path.parent.name, path.stem)


def host(name: str) -> Path:
    """The model of this name."""
    return ROOT / "examples" / "01_first_insertion" / "detector.onnx" if name == EXAMPLE else HOSTS / f"{name}.onnx"


def index() -> dict[str, Any]:
    """What was recorded."""
    read: dict[str, Any] = json.loads(INDEX.read_text())
    return read


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def plain(result: Any) -> Any:
    """A result as JSON keeps it: a model or bytes by their SHA-256, everything else as it is."""
    if isinstance(result, gsx.ModelFile):
        result = result.to_bytes()
    if isinstance(result, bytes):
        return {"sha256": sha256(result)}
    return json.loads(json.dumps(result))
