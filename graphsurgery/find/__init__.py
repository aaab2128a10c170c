"""Find: the attention in a model that an exporter wrote, and the proof of what it is."""

from __future__ import annotations

from ..modelfile.model import ModelFile
from .found import Found

__all__ = ["Found", "find"]


def find(model: ModelFile) -> list[Found]:
    """The attention in a model, in the order of its nodes."""
    return []
