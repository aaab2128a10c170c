"""Implied: the parameters of a block with the hyper-parameters that follow from the shapes of given weights."""

from __future__ import annotations

from collections.abc import Mapping

from ..blocks.block import Block
from ..errors import GraphSurgeryError
from ..feature_map import FeatureMap

Shape = tuple[int, ...]


def implied_parameters(
    block: Block, feature: FeatureMap, given: Mapping[str, Shape], *, checked: bool = False
) -> Mapping[str, Shape]:
    """The shapes of the parameters that a block has if some of its weights, by official key, have the given shapes; {}
    where it cannot have such weights.

    ``checked``: whether it must be able to work at the feature map; otherwise weights for other channels may do.
    """
    try:
        inferred = block.settings_from_weights({key: tuple(shape) or (1,) for key, shape in given.items()})
        block = block.with_values(**inferred)
        if checked:
            block.check(feature)
        return block.parameters(feature)
    except (GraphSurgeryError, ValueError, IndexError, KeyError, ArithmeticError):
        return {}
