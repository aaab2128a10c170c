"""Print docs/blocks.md: ``python -m graphsurgery.cards``."""

from __future__ import annotations

from .cards import main

main()
