"""Adviser: what speaks against a place, and the better place, tried before it is named."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..errors import SiteError
from ..messages import listed
from ..recognition import BlockTree
from ..recognition.advice import Examiner, Objection
from .suggestions import Suggestions

_FAR = 60
"""tensors that are examined for a better place"""
_MOST = 3
"""better places that are named"""


class Adviser:
    """Gives advice on the places of one model."""

    def __init__(self, blocks: BlockTree, suggestions: Suggestions) -> None:
        self._blocks = blocks
        self._suggestions = suggestions
        self._examiner = Examiner(blocks)
        self._given: dict[str, Advice] = {}

    def advice(self, tensor: str) -> Advice | None:
        """What speaks against a tensor as a place for a block; None where nothing does."""
        found = self._examiner.examine(tensor)
        return self._given.setdefault(tensor, Advice(self, found)) if found is not None else None

    def instead_of(self, objection: Objection) -> list[list[str]]:
        """The selectors of each of the better places than one against which this speaks: of those against which
        nothing does, and at which a block can be put.
        """
        pending, seen, found = list(objection.better), set[str](), list[list[str]]()
        while pending and len(seen) < _FAR and len(found) < _MOST:
            tensor = pending.pop(0)
            if tensor in seen:
                continue
            seen.add(tensor)
            if (other := self._examiner.examine(tensor)) is not None:
                pending += other.better
            elif names := self._selectors(tensor):
                found.append(names)
        return found

    def _selectors(self, tensor: str) -> list[str]:
        """What names a tensor alone: the module that it leaves, else the tensor itself and the block that it leaves."""
        blocks, leads_to = self._blocks, self._suggestions.leads_to
        node = blocks.view.producer(blocks.view.root(tensor))
        block = blocks.innermost(node) if node is not None else None
        path = blocks.display(block) if block is not None else None
        if path and leads_to(path, "after") == [tensor]:
            return [path]
        named = [f"tensor:{tensor}", *([blocks.selector(block)] if block is not None else [])]
        return [name for name in named if leads_to(name, "after") == [tensor]]


class Advice:
    """What speaks against a place, and what to do instead."""

    def __init__(self, adviser: Adviser, objection: Objection) -> None:
        self._adviser = adviser
        self._objection = objection

    @property
    def short(self) -> str:
        """A few words, for a table."""
        return self._objection.short

    @cached_property
    def _named(self) -> list[list[str]]:
        """The selectors of each better place."""
        return self._adviser.instead_of(self._objection)

    @property
    def instead(self) -> tuple[str, ...]:
        """Selectors of the better places, all of which would be accepted."""
        return tuple(name for names in self._named for name in names)

    @cached_property
    def sentence(self) -> str:
        """The reason, and the better place where there is one."""
        if not self._named:
            return self._objection.reason
        ending = f" {self._objection.ending}" if self._objection.ending else ""
        return f"{self._objection.reason}; use {listed([names[0] for names in self._named], last=' or')}{ending}"


@dataclass(frozen=True)
class Refused:
    """What keeps a block from being put at a place, said in the same way as advice."""

    short: str
    """a few words, for a table"""
    error: SiteError

    @property
    def sentence(self) -> str:
        """The reason, and the better places where there are some."""
        return str(self.error)

    @property
    def instead(self) -> tuple[str, ...]:
        """Selectors of the better places."""
        return self.error.candidates
