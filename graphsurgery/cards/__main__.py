"""Print docs/blocks.md, or bring what is named up to date: facts.json, or the tables of documents."""

from __future__ import annotations

import sys
from pathlib import Path

from . import known
from .cards import document
from .tables import write

for name in sys.argv[1:]:
    path = Path(name)
    if path.suffix == ".json":
        path.write_text(known.document(path.parent), encoding="utf-8")
    else:
        write(path)
if not sys.argv[1:]:
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write("".join(f"{line}\n" for line in document()))
