"""Text from a file, as messages show it."""

from __future__ import annotations


def printable(text: str) -> str:
    """Fit for a terminal and for one line: control characters are spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
