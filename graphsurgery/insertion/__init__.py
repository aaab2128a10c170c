"""Insertions: with removal the only place where the graph of a model is changed."""

from __future__ import annotations

from .plan import PlannedInsertion
from .splice import AppliedInsertion, insert

__all__ = ["AppliedInsertion", "PlannedInsertion", "insert"]
