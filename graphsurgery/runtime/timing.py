"""Times taken in turns, and what may be said of their difference.

Turns (A B C, A B C ...) let a machine that drifts drift for all of them alike, so that differences are taken within one
round. What is left is that the same model, loaded twice, does not run equally fast (memory lies elsewhere, threads sit
on other cores): a control, the first model once more, tells how much that is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from statistics import median, quantiles
from typing import Any

import numpy as np

from ..messages import tracked

_RESAMPLES = 2000


@dataclass(frozen=True)
class Times:
    """Milliseconds for one inference."""

    median: float
    spread: float
    """from the 10th to the 90th percentile"""
    rounds: int

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Times:
        """From the time of each round; ValueError for fewer than two."""
        cuts = quantiles(rounds, n=10, method="inclusive")
        return cls(median(rounds), cuts[-1] - cuts[0], len(rounds))

    def __str__(self) -> str:
        return f"{self.median:.3f} ms (spread {self.spread:.3f})"


class Verdict(str, Enum):
    """What may be said of a difference."""

    __str__ = str.__str__

    SLOWER = "slower"
    FASTER = "faster"
    BELOW_NOISE = "below noise"


@dataclass(frozen=True)
class Difference:
    """What the second of two takes longer than the first, in milliseconds."""

    median: float
    """of the differences within each round"""
    low: float
    high: float
    """the 95% interval of that median, by bootstrap"""
    relative: float
    """median over the first one's median"""
    noise: float
    """what a difference has to exceed: the largest one that the control's interval reaches; without a control, the
    spread of the differences from the 10th to the 90th percentile"""

    @classmethod
    def of(cls, before: Sequence[float], after: Sequence[float], control: Sequence[float] | None = None) -> Difference:
        """From the times of each round, in order. ``control``: those of the first model loaded once more."""
        apart = [b - a for a, b in zip(before, after, strict=True)]
        low, high = interval(apart)
        noise = Times.of(apart).spread
        if control is not None:
            noise = max(map(abs, interval([c - a for a, c in zip(before, control, strict=True)])))
        return cls(median(apart), low, high, median(apart) / median(before), noise)

    @property
    def verdict(self) -> Verdict:
        """Below noise is a difference whose interval holds zero, or that is not larger than the noise."""
        if self.low <= 0.0 <= self.high or abs(self.median) <= self.noise:
            return Verdict.BELOW_NOISE
        return Verdict.SLOWER if self.median > 0 else Verdict.FASTER

    def to_json(self) -> dict[str, Any]:
        """{"median", "low", "high", "relative", "noise", "verdict"}, in milliseconds."""
        return {**asdict(self), "verdict": str(self.verdict)}

    def __str__(self) -> str:
        figures = f"{self.median:+.3f} ms ({self.relative:+.1%}), 95% interval {self.low:+.3f} ... {self.high:+.3f}"
        return f"difference {figures}, noise {self.noise:.3f}: {self.verdict}"


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of the median. Always the same one for the same values."""
    array = np.asarray(values, np.float64)
    resampled = np.random.default_rng(0).integers(0, len(array), (_RESAMPLES, len(array)))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.median(array[resampled], axis=1), (tail, 100 - tail))
    return float(low), float(high)


def in_turns(
    timers: Sequence[Callable[[], float]], rounds: int, *, warm_up: int = 0, rng: np.random.Generator | None = None
) -> list[list[float]]:
    """What each timer gave in each round, after ``warm_up`` rounds that do not count.

    Every round asks each of them once: in the order given, or with ``rng`` in a new random one each time.
    """
    taken: list[list[float]] = [[] for _ in timers]
    for turn in tracked(range(-warm_up, rounds), "rounds"):
        for place in range(len(timers)) if rng is None else rng.permutation(len(timers)):
            measured = timers[place]()
            if turn >= 0:
                taken[place].append(measured)
    return taken


def wall(call: Callable[[], object]) -> Callable[[], float]:
    """A timer of a call: milliseconds of wall-clock time."""

    def timer() -> float:
        start = time.perf_counter_ns()
        call()
        return (time.perf_counter_ns() - start) / 1e6

    return timer
