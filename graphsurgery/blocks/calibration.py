"""The formula of the calibrated start: each channel behind a block gets the mean and deviation that it has without it.

Both are of all positions of all images. What collects them, from a live model or from a file, adds one map after the
other to :class:`Moments`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import RequestError
from .initial_weights import Array

_LEAST = 1e-6
"""of a deviation, relative to the channel's own mean and to the largest deviation of all, below which a channel
counts as constant: float32 leaves as much of one by rounding"""


@dataclass
class Moments:
    """Mean and deviation of each channel of the maps that were added, in float64."""

    count: int = 0
    """positions of a channel"""
    mean: Array = field(default_factory=lambda: np.zeros(()))
    """[C]"""
    squares: Array = field(default_factory=lambda: np.zeros(()))
    """[C]: the sum of (x - mean)^2"""

    @classmethod
    def of(cls, x: Array) -> Moments:
        """Of one map [N, C, H, W]."""
        with np.errstate(all="ignore"):  # what is not finite is told in the end
            x = x.astype(np.float64)
            mean = x.mean((0, 2, 3), keepdims=True)
            return cls(x.size // x.shape[1], mean.reshape(-1), np.square(x - mean).sum((0, 2, 3)))

    def add(self, other: Moments) -> None:
        """More maps. By the distance of the two means, not by sums of squares, which leave of a channel that is
        constant and far from 0 a deviation of their own rounding (Chan et al., 1983).
        """
        count = self.count + other.count
        with np.errstate(all="ignore"):
            distance = other.mean - self.mean
            self.squares = self.squares + other.squares + np.square(distance) * (self.count * other.count / count)
            self.mean = self.mean + distance * (other.count / count)
        self.count = count

    @property
    def deviation(self) -> Array:
        """[C]."""
        return np.asarray(np.sqrt(self.squares / self.count))

    @property
    def constant(self) -> Array:
        """[C]: whether a channel has one value everywhere."""
        sizes = np.maximum(np.abs(self.mean), self.deviation.max())
        return np.asarray(self.deviation <= _LEAST * sizes)


def lost(before: Moments, after: Moments) -> tuple[str, ...]:
    """What the user should know: a block whose output says nothing of the image gives no deviation to scale."""
    channels = int((after.constant & ~before.constant).sum())
    if not channels:
        return ()
    which = f"on the images, {channels} of the block's {len(after.constant)} channels say nothing"
    return (f"{which}: each has one value everywhere, and gets its mean back but not its deviation",)


def scale_and_shift(before: Moments, after: Moments, id: str) -> tuple[Array, Array]:
    """What gives a block's output the mean and deviation that its channels have without the block.

    Parameters
    ----------
    before, after:
        Of the map without the block, and of what the block ``id`` gives.

    Returns
    -------
    tuple[Array, Array]
        Scale and shift [C], float32. The scale is 1 for a channel that is constant on one of the two sides: 0 would
        leave its block without a gradient, and there is no number for the other case.

    Raises
    ------
    RequestError
        If one of the two sides is not finite.
    """
    with np.errstate(all="ignore"):
        ratio = before.deviation / after.deviation
        scale = np.where(before.constant | after.constant, 1.0, ratio)
        values = scale.astype(np.float32), (before.mean - scale * after.mean).astype(np.float32)
    if not all(np.isfinite(each).all() for each in values):
        arrives = np.isfinite(before.deviation).all()
        why = "" if arrives else ", since what arrives there has some as well"
        raise RequestError(f"{id} gives values on the images that are not finite{why}", option="images")
    return values
