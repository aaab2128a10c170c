"""Attention to the neighbours of each position by matrix products: the map in tiles, each with what is around it.

Every position of a tile is multiplied with all positions of the tile and of its surroundings, and those that are no
neighbours count nothing. For a neighbourhood of 7 x 7 that is a few times as many products as are wanted, where the
neighbours of every position written out are 49 times the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsurgery.blocks import Array, Template, Variable

from .transformer import logit_unit, reshape

_LOWEST = {"float16": -6e4}
_SIDE = 5


@dataclass(frozen=True)
class Tiles:
    """A map of height and width ``size`` in tiles; the last of a row or column may repeat the border of the map."""

    size: tuple[int, int]
    tile: tuple[int, int]
    kernel: int

    @classmethod
    def of(cls, size: tuple[int, int], kernel: int) -> Tiles:
        """Tiles of about equal size."""
        rows, columns = (-(-side // -(-side // _SIDE)) for side in size)
        return cls(size, (rows, columns), kernel)

    @property
    def _counts(self) -> tuple[int, int]:
        (height, width), (rows, columns) = self.size, self.tile
        return -(-height // rows), -(-width // columns)

    def _numbers(self, border: int) -> Array:
        """The numbers of the positions of every tile and of ``border`` around it: [tiles, positions]."""
        axes = []
        for side, tile, count in zip(self.size, self.tile, self._counts, strict=True):
            along = np.abs(np.arange(count)[:, None] * tile + np.arange(-border, tile + border))
            reflected = side - 1 - np.abs(side - 1 - along)
            axes.append(np.where(along < side + border, reflected, side - 1))  # nobody attends to what is farther
        rows, columns = axes
        numbers = rows[:, None, :, None] * self.size[1] + columns[None, :, None, :]
        found: Array = numbers.reshape(len(rows) * len(columns), -1)
        return found

    def positions(self, t: Template, tokens: Variable) -> Variable:
        """[N, heads, H * W, d] -> [N, heads, tiles, positions of a tile, d]."""
        return t.op("Gather", tokens, t.own(self._numbers(0), "tiles"), axis=2)

    def surroundings(self, t: Template, tokens: Variable) -> Variable:
        """The same with what is around each tile, reflected at the border of the map."""
        return t.op("Gather", tokens, t.own(self._numbers(self.kernel // 2), "surroundings"), axis=2)

    def joined(self, t: Template, tiles: Variable) -> Variable:
        """What ``positions`` does undone."""
        numbers = self._numbers(0).reshape(-1)
        places = np.full(self.size[0] * self.size[1], -1)
        places[numbers[::-1]] = np.arange(numbers.size)[::-1]
        tokens = reshape(t, tiles, (0, 0, numbers.size, -1))
        return t.op("Gather", tokens, t.own(places, "positions"), axis=2)

    def outside(self, t: Template) -> Array:
        """What is added to the logits: [1, 1, 1, positions of a tile, those with what is around it]."""
        near = []
        for tile in self.tile:
            away = np.arange(tile + self.kernel - 1)[None] - np.arange(tile)[:, None]
            near.append((away >= 0) & (away < self.kernel))
        rows, columns = near
        inside = rows[:, None, :, None] & columns[None, :, None, :]
        lowest = _LOWEST.get(t.dtype, -1e30) * logit_unit(t)
        found: Array = np.where(inside, 0.0, lowest).reshape(1, 1, 1, self.tile[0] * self.tile[1], -1)
        return found
