"""Rewriting: attention that an exporter wrote, put into the form of a template, where that is proven and a gain."""

from __future__ import annotations

from .places import Standing, Standings
from .rewrite import Left, Rewriting, Rewritten, rewrite

__all__ = ["Left", "Rewriting", "Rewritten", "Standing", "Standings", "rewrite"]
