"""The model file: bytes in, structure to look at, edits out, bytes written. Nothing of the payload is decoded."""

from __future__ import annotations

from .model import ModelFile
from .record import Insertion

__all__ = ["Insertion", "ModelFile"]
