"""Tracks: the place of each stretch of line in a gutter, so that no two lie on each other."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

_APART = 4.0
"""what is between the ends of two stretches on one track, at least"""


def tracks(stretches: Sequence[tuple[float, float]]) -> list[int]:
    """The track of each stretch (its lower and its higher end): short ones first, each on the first that is free."""
    points = sorted({end for stretch in stretches for end in stretch})
    taken = _Taken(len(points))
    found = [0] * len(stretches)
    for i in sorted(range(len(stretches)), key=lambda i: stretches[i][1] - stretches[i][0]):
        low, high = stretches[i]
        used = taken.within(bisect_left(points, low), bisect_right(points, high))
        found[i] = (~used & (used + 1)).bit_length() - 1  # the lowest bit that is not set
        taken.take(bisect_left(points, low - _APART), bisect_right(points, high + _APART), 1 << found[i])
    return found


class _Taken:
    """Which tracks are taken where, as bits: a tree of ranges, so that thousands of stretches take no time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._whole = [0] * (2 * size)
        """taken along a whole range"""
        self._some = [0] * (2 * size)
        """taken somewhere in a range"""

    def take(self, first: int, end: int, track: int) -> None:
        """Take a track from one place up to another."""
        for node in self._ranges(first, end):
            self._whole[node] |= track
            while node and not self._some[node] & track:
                self._some[node] |= track
                node >>= 1

    def within(self, first: int, end: int) -> int:
        """The tracks that are taken somewhere between two places."""
        used = 0
        for node in self._ranges(first, end):
            used |= self._some[node]
        for node in (first + self._size, end - 1 + self._size):
            while node:
                used |= self._whole[node]
                node >>= 1
        return used

    def _ranges(self, first: int, end: int) -> list[int]:
        """The nodes of the tree that make up a range."""
        found = []
        left, right = first + self._size, end + self._size
        while left < right:
            if left & 1:
                found.append(left)
                left += 1
            if right & 1:
                right -= 1
                found.append(right)
            left >>= 1
            right >>= 1
        return found
