"""Blocks in a live PyTorch model. Importing this package imports torch."""

from __future__ import annotations

from ..blocks.residual_module import ResidualGate

__all__ = ["ResidualGate"]
