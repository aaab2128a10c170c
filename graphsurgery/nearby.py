"""Nearby: the candidates that an error names because they are closest to what was asked for."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .featuremap import Dimension

_MOST = 1000


def closest(name: str, names: Iterable[str], *, count: int = 4, cutoff: float = 0.5) -> list[str]:
    """The names most like this one, best first. Of very many, only those that begin or end alike are compared."""
    pool: Collection[str] = dict.fromkeys(names)
    if len(pool) > _MOST:
        pool = heapq.nlargest(_MOST, pool, key=lambda other: _ends_alike(name, other))
    return difflib.get_close_matches(name, pool, n=count, cutoff=cutoff) if count else []


def _ends_alike(first: str, second: str) -> int:
    """How many characters of the two are the same from the beginning and from the end."""
    return _begin_alike(first, second) + _begin_alike(first[::-1], second[::-1])


def _begin_alike(first: str, second: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)


def listed(names: Collection[str], most: int = 6) -> str:
    """The first few, and how many more there are."""
    shown = list(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def shape_text(shape: Iterable[Dimension]) -> str:
    """``[1, 256, 20, 20]``, with ? for a size that is not known."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
