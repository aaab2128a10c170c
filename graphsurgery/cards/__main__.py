"""Print docs/blocks.md, or bring the tables of the documents that are named up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from .cards import document
from .tables import write

for name in sys.argv[1:]:
    write(Path(name))
if not sys.argv[1:]:
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write("".join(f"{line}\n" for line in document()))
