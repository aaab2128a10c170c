"""Advice: why a place is not a good one for a block, though a block could be put there, and which is better.

A rule is one function (rules.py). A rule names the tensors that may be better; who asks goes on to what speaks against
these, until nothing does.
"""

from __future__ import annotations

from ..blocktree import BlockTree
from .objection import Objection, Spot, Survey
from .rules import RULES

__all__ = ["Examiner", "Objection"]


class Examiner:
    """Examines the places of one model."""

    def __init__(self, tree: BlockTree) -> None:
        self._survey = Survey(tree)
        self._known: dict[str, Objection | None] = {}

    def examine(self, tensor: str) -> Objection | None:
        """What speaks against a tensor as a place for a block; None where nothing does."""
        if tensor not in self._known:
            self._known[tensor] = self._objection(Spot(self._survey, tensor))
        return self._known[tensor]

    def _objection(self, spot: Spot) -> Objection | None:
        for rule in RULES:
            if (found := rule(spot)) is not None:
                return found
        return None
