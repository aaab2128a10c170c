"""Start: the weights that a block begins with, from its initialisation or from a file, wherever it is put."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..blocks.block import Array, Block
from ..errors import BlockError, WeightsError, concerning
from ..feature_map import FeatureMap
from ..request import Request
from ..template.around import Around
from ..template.residual_gate import GATE_KEY
from ..userblocks import Trust

if TYPE_CHECKING:
    from ..weights import Checkpoint, Fitted


@dataclass(frozen=True)
class Start:
    """A block, with the hyper-parameters that its weights imply, and these weights."""

    block: Block
    weights: Callable[[int, str], Mapping[str, Array]]
    """makes them, alpha of a residual gate among them, for the seed and the id of an insertion"""
    init: str
    """"default", "identity", "calibrated" or, for those of a file, "weights" """
    warnings: tuple[str, ...] = ()
    """what the user should know of how the block was made"""
    source: str = ""
    """FILE[:PREFIX] of the weights of a file"""


def _generator(seed: int, id: str) -> np.random.Generator:
    """The generator of one insertion: the same for the same seed and id, in a file and in a live model."""
    return np.random.default_rng([seed, zlib.crc32(id.encode())])


@concerning("weights")
def checkpoint(request: Request, trust: Trust) -> Checkpoint | None:
    """The file of weights that a request names; None where it names none. Raises WeightsError."""
    if request.weights is None:
        return None
    from .. import weights

    return weights.read(weights.split(request.weights)[0], trust)


def start_of(request: Request, block: Block, feature: FeatureMap, trained: Checkpoint | None) -> Start:
    """How a block begins at a feature map; ``trained`` is what :func:`checkpoint` gives. Raises WeightsError, and
    BlockError for a block that has no weights.
    """
    if request.gate == "residual" and GATE_KEY in block.parameters(feature):
        sentence = f"{block.spelled} has a parameter {GATE_KEY!r} of its own, which is that of the residual gate"
        raise BlockError(f"{sentence}: give it another name", option="gate")
    if trained is None:
        return Start(block, _own(block, feature, request), request.init, _meant_otherwise(request, block))
    own = _from_file(request, block, feature, trained)
    return Start(own.block, lambda seed, id: own.arrays, "weights", own.warnings, own.source)


def _meant_otherwise(request: Request, block: Block) -> tuple[str, ...]:
    """A warning where a recipe, which does not tell its age, has a bare name that meant another variant before."""
    if not (request.label and block.formerly and request.module.strip() == block.name):
        return ()
    before = f"{block.name}[{block.formerly}]"
    return (f"{block.name} is {block.spelled}, and was {before} before: name the one that the recipe means",)


def _own(block: Block, feature: FeatureMap, request: Request) -> Callable[[int, str], Mapping[str, Array]]:
    around = Around.of(request.gate, ()).initial(feature.channels)
    if request.init == "identity" and not around:
        return lambda seed, id: block.identity(feature)
    if not block.has_weights:
        return lambda seed, id: around  # numpy.random takes 6 ms
    return lambda seed, id: {**block.initial(feature, _generator(seed, id)), **around}


@concerning("weights")
def _from_file(request: Request, block: Block, feature: FeatureMap, trained: Checkpoint) -> Fitted:
    from .. import weights

    _, prefix = weights.split(request.weights or "")
    try:
        part = weights.part(trained, prefix, block, feature)
    except WeightsError as error:
        raise (error if block.has_weights else weights.without_weights(block, feature, trained)) from None
    own, around = weights.apart(part, block, feature, gated=request.gate == "residual")
    if not block.has_weights and len(own.arrays) == len(part.arrays):
        raise weights.without_weights(block, feature, own)
    fitted = weights.fitted(block, feature, own, request.settings)
    return replace(fitted, arrays={**fitted.arrays, **around})
