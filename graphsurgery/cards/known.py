"""What is known of a block: what was tried once and written down beside it, or else what a trial gives.

A package of blocks has its facts in facts.json; ``python -m graphsurgery.cards patterns/attention/facts.json`` tries
the blocks of that folder again. A package without the file loses time only.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from ..blocks.block import Block
from .listing import in_order_of_demand, variants

_FILE = "facts.json"
KEYS = {"parameters", "buffers", "macs", "largest_tensor"}
"""what a file of an earlier version does not have, or means otherwise"""


def facts(block: Block) -> dict[str, Any]:
    """What the table says of a block with its default hyper-parameters, with the keys of the command line's JSON."""
    written = _written(type(block).__module__.rpartition(".")[0]).get(block.spelled, {})
    return written if written.keys() >= KEYS else tried(block)


def tried(block: Block) -> dict[str, Any]:
    """The same, found out by trying it."""
    from .facts import Facts

    return Facts(block).to_json()


def document(folder: Path) -> str:
    """The text of facts.json for the blocks that are written in a folder."""
    every = [block for kind in in_order_of_demand() for block in variants(kind) if _folder(block) == folder.resolve()]
    lines = (f"{json.dumps(block.spelled)}: {json.dumps(tried(block))}" for block in every)
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _folder(block: Block) -> Path | None:
    file = sys.modules[type(block).__module__].__file__
    return Path(file).resolve().parent if file else None


@cache
def _written(package: str) -> dict[str, dict[str, Any]]:
    file = files(package).joinpath(_FILE) if package else None
    if file is None or not file.is_file():
        return {}
    return cast(dict[str, dict[str, Any]], json.loads(file.read_text(encoding="utf-8")))
