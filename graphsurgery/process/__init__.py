"""The process: what it must not leave behind, how a signal ends it, and what it may do to files that it keeps open.

It imports next to nothing, because the command line imports it before anything else.
"""

from __future__ import annotations

from . import leftovers, open_files, signals

__all__ = ["leftovers", "open_files", "signals"]
