"""Why a part that looks like a block is none, in words: what stands in it that evaluation has not, and a factor that
it has not, or has besides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ..feature_map import Array
from ..modelfile.operators import operator
from .reading import Reading

_RANDOM = frozenset({"Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})
_TRAINING = "training_mode"
_EQUAL = 1e-3
"""how far two factors may be apart that are the same, as a share"""


def left_of_training(reading: Reading) -> list[str]:
    """What a part has because it was exported in training mode, a phrase each."""
    found = list[str]()
    for node in reading.nodes:
        name = operator(node)
        if name == "Dropout" and _drops(node, reading):
            found.append("dropout that was left in")
        elif name == "BatchNormalization" and _normalises_by_batch(node):
            found.append("a BatchNorm that goes by the statistics of each batch")
        elif name in _RANDOM:
            found.append(f"random numbers ({name})")
    return list(dict.fromkeys(found))


def in_evaluation(reading: Reading) -> Sequence[onnx.NodeProto]:
    """The nodes of a part as they would be, had it been exported in evaluation mode."""
    return [_in_evaluation(node) for node in reading.nodes]


def _in_evaluation(node: onnx.NodeProto) -> onnx.NodeProto:
    name = operator(node)
    if name not in ("Dropout", "BatchNormalization"):
        return node
    made = onnx.NodeProto()
    made.CopyFrom(node)
    kept = [each for each in node.attribute if each.name != _TRAINING]
    del made.attribute[:], made.output[1:]
    made.attribute.extend(kept)
    if name == "Dropout":
        made.input[:] = node.input[:1]
    return made


def _drops(node: onnx.NodeProto, reading: Reading) -> bool:
    """Whether a Dropout drops something; before opset 12 none does."""
    if len(node.input) < 3 or not node.input[2]:
        return False
    ratio = reading.constants.value(node.input[1]) if node.input[1] else None
    mode = reading.constants.value(node.input[2])
    return (mode is None or bool(mode.any())) and (ratio is None or bool(ratio.any()))


def _normalises_by_batch(node: onnx.NodeProto) -> bool:
    return any(each.name == _TRAINING and each.i for each in node.attribute)


def times(factor: Array) -> str:
    """A factor in words: of everything, or of each channel."""
    numbers = factor.ravel()
    if np.ptp(numbers) <= _EQUAL * abs(numbers[0]):
        return f"times {numbers.mean():.4g}"
    return f"with a factor for each channel, {numbers.min():.4g} to {numbers.max():.4g}"
