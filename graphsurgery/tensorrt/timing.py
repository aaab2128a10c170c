"""Times of two engines, taken in turns, and what may be said of their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Times:
    """Milliseconds for one inference."""

    median: float
    spread: float
    """from the 10th to the 90th percentile"""
    rounds: int

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Times:
        """From the mean time of each round; ValueError for fewer than two."""
        cuts = quantiles(rounds, n=10, method="inclusive")
        return cls(median(rounds), cuts[-1] - cuts[0], len(rounds))

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/tensorrt.md."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.median:.3f} ms (spread {self.spread:.3f})"


def difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """(median, spread) in milliseconds of what the second engine takes longer, round by round."""
    apart = Times.of([b - a for a, b in zip(before, after, strict=True)])
    return apart.median, apart.spread


def verdict(before: Sequence[float], after: Sequence[float]) -> str:
    """The difference as a sentence; one that is smaller than its own spread is called below noise."""
    change, spread = difference(before, after)
    if abs(change) <= spread:
        return f"difference {change:+.3f} ms: below noise ({spread:.3f} ms)"
    return f"difference {change:+.3f} ms ({change / median(before):+.1%}), noise {spread:.3f} ms"
