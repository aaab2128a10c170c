"""Print docs/blocks.md, or bring the tables of the documents that are named up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from .cards import main
from .tables import write

for name in sys.argv[1:]:
    write(Path(name))
if not sys.argv[1:]:
    main()
