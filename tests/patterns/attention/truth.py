"""What a block's PyTorch module gives, computed once for all forms and opsets that hold the same weights."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from graphsurgery.blocks.block import Block
from graphsurgery.blocks.state_dict import load_weights
from graphsurgery.feature_map import FeatureMap
from graphsurgery.verification.conditioning import Conditioning

Array = np.ndarray[Any, Any]
Value = TypeVar("Value")

KEPT = 16
"""Modules that are remembered: as many as the maps that one test puts a block on, opset after opset."""
_MODULES: OrderedDict[tuple[object, ...], Truth] = OrderedDict()


class Truth:
    """The PyTorch module with these weights, float64, evaluation mode; and what it has given so far."""

    def __init__(self, block: Block, feature: FeatureMap, weights: Mapping[str, Array]) -> None:
        module = block.module(feature)
        load_weights(module, weights)
        self.module = module.double().eval()
        self._conditioning = Conditioning(self.module, feature.dtype)
        self._given: dict[tuple[object, ...], Array] = {}
        self._slack: dict[tuple[object, ...], float] = {}
        self._rounding: dict[tuple[object, ...], float] = {}

    def expected(self, x: Array) -> Array:
        """What the module gives for ``x``, float64."""
        return _once(self._given, x, self._compute)

    def slack(self, x: Array) -> float:
        """What is permitted on top of the tolerance where the block multiplies rounding errors."""
        return _once(self._slack, x, lambda x: self._conditioning.slack(x, self.expected(x)))

    def rounding(self, x: Array) -> float:
        """How far rounding alone can move the result in half precision, relative to it."""
        return _once(self._rounding, x, lambda x: self._conditioning.relative(x, self.expected(x)))

    def _compute(self, x: Array) -> Array:
        with torch.no_grad():
            y: Array = self.module(torch.from_numpy(x.astype(np.float64))).numpy()
        y.flags.writeable = False
        return y


def truth(block: Block, feature: FeatureMap, weights: Mapping[str, Array]) -> Truth:
    """The module of the block with exactly these weights."""
    digest = hashlib.sha256()
    for key, values in sorted(weights.items()):
        digest.update(f"{key} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    key = (type(block), block.spelled, repr(sorted(block.values.items())), feature, digest.digest())
    found = _MODULES.pop(key, None) or Truth(block, feature, weights)
    _MODULES[key] = found
    while len(_MODULES) > KEPT:
        _MODULES.popitem(last=False)
    return found


def _once(known: dict[tuple[object, ...], Value], x: Array, compute: Callable[[Array], Value]) -> Value:
    key = (x.shape, x.dtype.str, x.tobytes())
    if key not in known:
        known[key] = compute(x)
    return known[key]
