"""What a block writes its subgraph with."""

from __future__ import annotations

from .template import Template

__all__ = ["Template"]
