"""The model file: bytes in, structure to look at, edits out, bytes written. Nothing of the payload is decoded."""

from __future__ import annotations

from .model import ModelFile

__all__ = ["ModelFile"]
