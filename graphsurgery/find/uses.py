"""Uses: where a part, or a module, computes with a constant; in the order in which it does.

The two sides speak of them alike, so that the constants of the one can be told to be the parameters of the other: an
exporter keeps the order of a module's operations, whatever it does to their names and forms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import prod

import numpy as np

from ..feature_map import Array

_MASK = 50.0
"""less than this is no mask"""
_ROUNDING = 1e-3
"""that masking in float32 leaves"""


class Role(Enum):
    """What a constant is to the operation."""

    MATRIX = "matrix"
    """[out, in, ...]: of a convolution or a product of matrices"""
    SCALE = "scale"
    SHIFT = "shift"
    MEAN = "mean"
    VARIANCE = "variance"
    OTHER = "other"


class Kind(Enum):
    """What a part does, or a module, that every exporter writes so that it can be told."""

    SOFTMAX = "softmax"
    PRODUCT = "product"
    """of two matrices that both depend on the input"""
    MAXIMUM = "maximum"
    ROOT = "root"
    """as in a norm or a deviation"""
    SAMPLING = "sampling"
    MASK = "mask"
    """that keeps positions of a window apart"""


@dataclass(frozen=True)
class Use:
    """One constant in one operation."""

    role: Role
    shape: tuple[int, ...]
    read: Callable[[], Array]
    name: str
    """of the tensor; of the parameters that it is made of, where a module is looked at"""
    transposed: bool = False
    """whether its last two axes are exchanged against what ``read`` gives"""
    inverse: Callable[[Array], Array] | None = None
    """of a module's: what undoes the function that it is of a parameter, element by element"""
    solve: Callable[[Array], tuple[Array, Array] | None] | None = None
    """of a module's that is made of several parameters at once: (the places of their elements, the values of these
    with which it is what is given); None where there are none
    """
    operation: int = 0
    """the number of the operation that computes with it: of a node in a part, of a step of a module"""
    upstream: int = 0
    """the operations that this one depends on, a bit each"""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def squeezed(self) -> tuple[int, ...]:
        """The shape as it is used, without sizes of 1."""
        shape = (*self.shape[:-2], self.shape[-1], self.shape[-2]) if self.transposed else self.shape
        return tuple(size for size in shape if size != 1)

    def comes_after(self, other: Use) -> bool:
        """Whether it is used in something that depends on what the other is used in."""
        return bool(self.upstream >> other.operation & 1)

    def values(self) -> Array:
        """As they are used."""
        values = self.read()
        return values.swapaxes(-1, -2) if self.transposed else values

    def as_read(self, values: Array) -> Array:
        """What ``read`` would give for these values as they are used, of as many elements."""
        if not self.transposed:
            return values.reshape(self.shape)
        *others, rows, columns = self.shape
        turned: Array = values.reshape(*others, columns, rows).swapaxes(-1, -2)
        return turned


def unmasked(values: Array) -> Array:
    """The table [1, ...] in what holds it for each window [windows, ...], with a mask added that is one large negative
    number where it is not 0, as for shifted windows; what is nothing of the kind as it is.
    """
    if values.ndim < 4 or len(values) < 2:
        return values
    table = values.max(axis=0, keepdims=True)
    mask = values - table
    some = (mask == 0).any(axis=tuple(range(1, values.ndim)))  # each window sees itself
    return table if some.all() and is_mask(mask) else values


def is_mask(values: Array) -> bool:
    """Whether a constant is 0, and in places one large negative number."""
    masked = values < -_MASK
    return bool(masked.any() and not values[~masked].any() and np.ptp(values[masked]) <= _ROUNDING)


def as_it_is(values: Array) -> Array:
    """The same, for what is read later and is known already."""
    return values
