"""First values of parameters, from their keys and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphsurgery.blocks.block import Array
from graphsurgery.blocks.initial_weights import layer_values


def torch_default(shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, Array]:
    """What torch's constructors give: convolutions and linear layers uniform by fan-in, normalisations 1 and 0.

    ``shapes``: key -> shape, with ``<layer>.weight`` for every layer, whose rank tells which kind it is.
    """
    layers = {key: shape for key, shape in shapes.items() if len(shapes[f"{key.rpartition('.')[0]}.weight"]) > 1}
    ones = (".weight", ".running_var")
    norms = {key: np.full(shape, float(key.endswith(ones)), np.float32) for key, shape in shapes.items()}
    return norms | layer_values(rng, layers)
