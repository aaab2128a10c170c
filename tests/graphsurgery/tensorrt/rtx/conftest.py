"""NVIDIA's parser, or the fake of it."""

from __future__ import annotations

from tests.rtx import no_rtx, rtx

__all__ = ["no_rtx", "rtx"]
