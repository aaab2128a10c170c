"""Uses: where a part, or a module, computes with a constant; in the order in which it does.

The two sides speak of them alike, so that the constants of the one can be told to be the parameters of the other: an
exporter keeps the order of a module's operations, whatever it does to their names and forms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import prod

from ..feature_map import Array


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

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def squeezed(self) -> tuple[int, ...]:
        """The shape as it is used, without sizes of 1."""
        shape = (*self.shape[:-2], self.shape[-1], self.shape[-2]) if self.transposed else self.shape
        return tuple(size for size in shape if size != 1)

    def values(self) -> Array:
        """As they are used."""
        values = self.read()
        return values.swapaxes(-1, -2) if self.transposed else values
