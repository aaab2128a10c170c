"""FeatureMap: what a block needs to know of the tensor it is put on; element types and arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import TensorProto

Array: TypeAlias = npt.NDArray[Any]
"""An array of any element type."""

Dimension: TypeAlias = int | str | None
"""A known size, the name of a symbolic one, or None for one that is not known."""

_ONNX_TYPES: dict[str, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
}
_DTYPES = {number: name for name, number in _ONNX_TYPES.items()}

_LARGE = 128 * 128
_MOST_UNEVEN = 4
"""how many times more the height of a map may be reduced than its width, or less"""


def float_dtype(onnx_type: int) -> str | None:
    """Name of a floating-point element type that blocks can work in, or None for every other type."""
    return _DTYPES.get(onnx_type)


def type_name(number: int) -> str:
    """Name of any element type of ONNX: ``float32``, ``int64``; ``type 99`` for one that is not known."""
    if number not in TensorProto.DataType.values():
        return f"type {number}"
    return float_dtype(number) or str(TensorProto.DataType.Name(number)).lower()


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The element type of that name as numpy, with ml_dtypes for bfloat16, sees it."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


@dataclass(frozen=True)
class FeatureMap:
    """A tensor [N, C, H, W] in front of a block. ``None`` for N, H or W means known only when the model runs."""

    channels: int
    height: int | None
    width: int | None
    dtype: str = "float32"
    batch: int | None = None
    label: str = "the site"
    path: str | None = field(default=None, compare=False)
    """dotted path of the module that it leaves or enters; None where the model tells none"""

    @property
    def static(self) -> bool:
        """Whether height and width are known before the model runs."""
        return self.height is not None and self.width is not None

    @property
    def shape(self) -> tuple[int | None, int, int | None, int | None]:
        """[N, C, H, W], None where a size is open."""
        return self.batch, self.channels, self.height, self.width

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a static map; ValueError otherwise."""
        if self.height is None or self.width is None:
            raise ValueError(f"{self.label} has a dynamic height or width")
        return self.height, self.width

    @property
    def area(self) -> int:
        """Number of positions, H*W, of a static map."""
        height, width = self.size
        return height * width

    @property
    def large(self) -> bool:
        """Whether a map has, or may have, so many positions that a float32 sum over all of them loses digits.

        onnxruntime adds up one by one: the mean of a constant map of 320 x 320 is off by 3e-5.
        """
        return not self.static or self.area > _LARGE

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The element type as numpy (with ml_dtypes for bfloat16) sees it."""
        return numpy_dtype(self.dtype)

    @property
    def onnx_type(self) -> int:
        """The element type as a TensorProto.DataType number."""
        return _ONNX_TYPES[self.dtype]


def channels_first(shape: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    """The shape of an image as [N, C, H, W], if it is [N, H, W, C] with 1, 3 or 4 channels as TensorFlow has it."""
    counts = (1, 3, 4)
    if len(shape) == 4 and shape[3] in counts and shape[1] not in counts:
        return shape[0], shape[3], shape[1], shape[2]
    return shape


def fits_image(image: tuple[Dimension, ...], shape: tuple[Dimension, ...]) -> bool:
    """False for [1, 16, 4, 8400] and the like: tokens or boxes, whose two last sizes are not height and width.

    A map is as many times smaller than the image [N, C, H, W] in height as in width, but for rounding; one that is
    pooled along one of them has a size of 1 there. True where a size is not known.
    """
    sizes = [size for size in (*image[2:], *shape[2:]) if isinstance(size, int) and size > 0]
    if len(sizes) != 4 or 1 in shape[2:]:
        return True
    tall, wide, height, width = sizes
    return 1 / _MOST_UNEVEN <= (tall / height) / (wide / width) <= _MOST_UNEVEN
