"""Selectors: text that names places in a model, and what it names there."""

from __future__ import annotations

from .sites import Site, SiteFinder

__all__ = ["Site", "SiteFinder"]
