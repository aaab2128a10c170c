"""The installed blocks in order, and what is said of each beside its facts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ..blocks.block import Block, Setting
from ..blocks.registry import all_blocks
from ..messages import attributes

TENSORRT = ("8.6", "10", "11")
DLA = "orin"


def in_order_of_demand() -> list[type[Block]]:
    """The installed blocks, those first that people ask for most."""
    return sorted(all_blocks().values(), key=lambda block: (block.demand, block.name))


def variants(block: type[Block]) -> list[Block]:
    """The block in each of its variants, the one of the bare name first."""
    return [block(variant) for variant in block.variants or (None,)]


def short_paper(paper: str) -> str:
    """An identifier of the paper that fits into a table: its arXiv number, or where it appeared."""
    number = re.search(r"arXiv:\d+\.\d+", paper)
    return number.group() if number else paper.rpartition(", ")[2]


def settings_json(settings: Iterable[Setting]) -> list[dict[str, Any]]:
    """The hyper-parameters with all that restricts them."""
    keys = ("name", "type", "default", "doc", "minimum", "above", "choices", "required")
    return [attributes(setting, *keys) for setting in settings]
