"""Page: a report of `sweep` as one HTML file that needs no network: table, plots, heat maps, places and commands.

sections.py makes the parts, columns.py says what the table shows, heat.py the maps block x place, plots.py the plots by
matplotlib, picture.py the detector with the places marked. page.css and page.js are written into the file.
"""

from __future__ import annotations

from .picture import marked_picture
from .sections import page

__all__ = ["marked_picture", "page"]
