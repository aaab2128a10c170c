"""Print docs/blocks.md."""

from __future__ import annotations

from .cards import main

main()
