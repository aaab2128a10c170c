"""Ports: classes in public code whose weights have the keys of a block, and the function that each of them is.

A package of blocks has its ports in ports.json: name of a block -> one row for each class. Where keys are those of
several classes, what a checkpoint says of the pickled module may tell which one they are of (``marks``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import product

from ..blocks.block import Block
from ..blocks.setting import Value
from ..feature_map import FeatureMap
from .checkpoint import COUNTER, Checkpoint

_FILE = "ports.json"
SITES: dict[str, Callable[[Block, FeatureMap], bool]] = {
    "not square": lambda block, feature: feature.height is None or feature.height != feature.width,
    "one window": lambda block, feature: feature.static and min(feature.size) <= block.integer("window"),
}
"""name of a kind of site -> whether a feature map is one for a block"""


@dataclass(frozen=True)
class Port:
    """One class, as one row of the table has it."""

    source: str
    """what messages call it: "External-Attention's CBAMBlock" """
    at: str
    """where it was read: repository@commit and file, or the version of a package"""
    keys: str
    """of its state_dict: ``fc{1,2}.{weight,bias} bn.*?``. Each key of a file is one of these, and each of these is in
    the file but for those with a ``?``; a star stands for any one name"""
    reads: str
    """the block that is this function, ``cbam[external-attention]``; "" where none is"""
    settings: Mapping[str, Value] = field(default_factory=dict)
    """its hyper-parameters that tell it from the others"""
    function: str = ""
    """what sets its function apart from those of others with the same keys, as in "adds x" """
    shapes: Mapping[str, str] = field(default_factory=dict)
    """key -> regular expression for the shape of that tensor, as in "1 2 7 7" """
    where: str = ""
    """the sites at which nothing is this function; else all, see :data:`SITES`"""
    named: str = ""
    """the block whose name means this class, though its function is another"""
    rare: bool = False
    """whether it is an option that hardly anyone sets: only a pickled module tells of it, and no warning names it"""
    marks: Sequence[Mapping[str, str]] = ()
    """what tells it in a pickled module: path of an attribute or a module, "" for the module itself -> regular
    expression for its value or class; one such mapping has to hold"""

    def fits(self, part: Checkpoint) -> bool:
        """Whether weights have the keys of its state_dict; an exporter may have folded some of them away."""
        required, optional = _patterns(self.keys)
        every, keys = [*required, *optional], [key for key in part.arrays if key not in part.spare]
        if not all(any(each.fullmatch(key) for each in every) for key in keys):
            return False
        if not (any if part.exported else all)(any(each.fullmatch(key) for key in keys) for each in required):
            return False
        shapes = {key: " ".join(map(str, part.arrays[key].shape)) for key in self.shapes if key in part.arrays}
        return all(re.fullmatch(self.shapes[key], shape) for key, shape in shapes.items())

    def mark_in(self, description: Mapping[str, str]) -> Mapping[str, str] | None:
        """What in the description of a pickled module (see Checkpoint) tells that it is of this class; None if nothing
        does.
        """
        for mark in self.marks:
            if all(path in description and re.fullmatch(value, description[path]) for path, value in mark.items()):
                return mark
        return None


def ports_of(block: Block) -> tuple[Port, ...]:
    """The known ports of a block, the one whose function its keys were first read as first."""
    return _table(type(block).__module__.rpartition(".")[0]).get(block.name, ())


@cache
def _table(package: str) -> Mapping[str, tuple[Port, ...]]:
    file = files(package).joinpath(_FILE) if package else None
    if file is None or not file.is_file():
        return {}
    rows = json.loads(file.read_text(encoding="utf-8"))
    return {name: tuple(Port(**row) for row in of_block) for name, of_block in rows.items()}


@cache
def _patterns(keys: str) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
    """Regular expressions for the keys that a file must have, and for those that it may have."""
    required: list[re.Pattern[str]] = []
    optional = [re.compile(rf"(?:.*\.)?{COUNTER}")]
    for word in keys.split():
        parts = re.split(r"\{([^{}]*)\}", word.rstrip("?"))
        choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
        written = ("".join(each) for each in product(*choices))
        patterns = [re.compile(r"[^.]+".join(map(re.escape, each.split("*")))) for each in written]
        (optional if word.endswith("?") else required).extend(patterns)
    return required, optional
