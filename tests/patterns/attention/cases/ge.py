"""Gather-Excite as timm has it, in the tests that go over every block."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("ge[timm]", {"hidden": 3}),
    ("ge[timm]", {"add_maxpool": True, "hidden": 4}),
    ("ge[timm]", {"add_maxpool": True, "mlp": False}),
    ("ge[timm]", {"extent": 4, "hidden": 5, "add_maxpool": True}),
    ("ge[timm]", {"extra_params": True, "hidden": 3, "bn_eps": 1e-3}),
    ("ge[timm]", {"extra_params": True, "extent": 8, "mlp": False}),
]
IDENTITY = {
    "ge[timm] hidden=3",
    "ge[timm] add_maxpool=True hidden=4",
    "ge[timm] extent=4 hidden=5 add_maxpool=True",
    "ge[timm] extra_params=True hidden=3 bn_eps=0.001",
    "ge[timm] extra_params=True extent=8 mlp=False",
}


def weights(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array | None:
    """A convolution as large as the map sums so many positions that a mean of its weights would be all it gives."""
    as_large_as_the_map = key == "gather.conv1.weight" and shape[2:] != (3, 3)
    return rng.normal(0.0, 0.6 / np.sqrt(np.prod(shape[2:])), shape) if as_large_as_the_map else None
