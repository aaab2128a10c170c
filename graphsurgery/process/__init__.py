"""The process: what it must not leave behind, and how a signal ends it.

It imports next to nothing, because the command line imports it before anything else.
"""

from __future__ import annotations

from . import leftovers, signals

__all__ = ["leftovers", "signals"]
