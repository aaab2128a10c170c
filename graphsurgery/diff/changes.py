"""Change: one thing that two models do not have alike, and how texts show what changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..messages import as_text, printable

NONE = "(none)"
"""stands in texts for what is not there"""


@dataclass(frozen=True)
class Change:
    """One thing that is in one model only, or in both and not the same."""

    kind: Literal["added", "removed", "changed"]
    name: str
    what: str = ""
    """operator of a node, type of a tensor, value of a header field"""
    details: tuple[str, ...] = ()
    """for what changed: "input 0: a -> b" and the like"""

    def to_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return {"name": self.name, "what": self.what, "details": list(self.details)}


def unequal(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[tuple[str, str | None, str | None]]:
    """Each key whose values differ, with both of them; None for one that is not there."""
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if old != new:
            yield key, old, new


def short(text: str | bytes, most: int = 80) -> str:
    """A text on one line, cut to at most ``most`` characters."""
    line = printable(as_text(text)[: most + 1]) or NONE
    return line if len(line) <= most else line[: most - 3] + "..."


def arrow(before: str | bytes | None, after: str | bytes | None) -> str:
    """``before -> after``; of long texts the part from shortly before they differ."""
    old, new = as_text(before or ""), as_text(after or "")
    if max(len(old), len(new)) > 80:
        shared = min(len(old), len(new))
        if (start := next((i for i in range(shared) if old[i] != new[i]), shared) - 20) > 0:
            old, new = "..." + old[start:], "..." + new[start:]
    return f"{short(old)} -> {short(new)}"
