"""MovedWeights: initializers of a part that a block has in another shape, so that they need not be kept.

A linear layer that becomes a 1x1 convolution has the same numbers, perhaps transposed. The record then holds all of the
old initializer but its numbers, and those come back from the block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ..feature_map import Array
from ..modelfile.cut_payload import without_payload
from ..modelfile.fields import INITIALIZER
from ..modelfile.model import ModelFile

_WORTH = 256
"""bytes from which on a weight is looked for in the block: the name in the record takes as much"""
_FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)


class MovedWeights:
    """Those of one part; ``written`` are the initializers that its block brings."""

    def __init__(self, model: ModelFile, written: Sequence[onnx.TensorProto]) -> None:
        self._model = model
        self._written = [each for each in written if each.data_type in _FLOATS]
        self.names: dict[str, str] = {}
        """initializer of the part -> the block's"""
        self.turned: list[str] = []
        """those that are the transpose of that"""
        self.cut: dict[bytes, bytes] = {}
        """the field of each -> the same without numbers"""

    def take(self, tensor: onnx.TensorProto, position: int) -> bool:
        """Whether the block has the numbers of an initializer, which then is one of these."""
        alike = [each for each in self._written if _same_size(each, tensor)]
        if not alike:
            return False
        field = self._model.pieces(INITIALIZER)[position].data
        cut = without_payload(field)
        if cut is None or len(field) - len(cut) < _WORTH:
            return False
        old = self._model.tensor(tensor.name).tobytes()
        for each in alike:
            new = onnx.numpy_helper.to_array(each)
            turned = _turned(new).tobytes() == old
            if turned or new.tobytes() == old:
                self.names[tensor.name] = each.name
                self.cut[field] = cut
                if new.tobytes() != old:
                    self.turned.append(tensor.name)
                return True
        return False


def _same_size(one: onnx.TensorProto, other: onnx.TensorProto) -> bool:
    return bool(one.data_type == other.data_type and np.prod(one.dims) == np.prod(other.dims))


def _turned(values: Array) -> Array:
    """The transpose of a matrix, or of a convolution over one position."""
    if values.ndim < 2:
        return values
    turned: Array = np.ascontiguousarray(values.reshape(len(values), -1).T)
    return turned
