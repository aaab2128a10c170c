"""Page: a report of `sweep` as one HTML file that needs no network: table, plots, heat maps, places and commands.

sections.py makes the parts, columns.py says what the table shows, heat.py the maps block x place, plots.py the plots by
matplotlib. page.css and page.js are written into the file.
"""

from __future__ import annotations

from .sections import page

__all__ = ["page"]
