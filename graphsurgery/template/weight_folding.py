"""Folding of constants, in float64, and the way back: reading a block's parameters out of the model that it stands in.

A template keeps a parameter as it is, folds a BatchNorm into a convolution, or folds parameters into something new.
The record of the insertion says which, so that the PyTorch module can be built again from the file alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..modelfile.packed import pack, unpack

Array = np.ndarray[Any, Any]
_KINDS = {"<f4": np.float32, "<f8": np.float64}


def affine(values: Callable[[str], Array], bn: str, eps: float) -> tuple[Array, Array]:
    """(scale, shift) per channel, float64, of an evaluated BatchNorm: scale = weight / sqrt(running_var + eps)."""
    scale = values(f"{bn}.weight") / np.sqrt(values(f"{bn}.running_var") + eps)
    return scale, values(f"{bn}.bias") - scale * values(f"{bn}.running_mean")


def per_output(scale: Array, rank: int) -> Array:
    """A vector over output channels, shaped to multiply a convolution weight of that rank."""
    return scale.reshape(-1, *[1] * (rank - 1))


def keep(values: Array) -> dict[str, Any]:
    """An array as text, for parameters that the template does not hold in any form that they could be read from."""
    kind = "<f8" if values.dtype == np.float64 else "<f4"
    data = np.ascontiguousarray(values, dtype=kind).tobytes()
    return {"data": pack(data), "dtype": kind, "shape": list(values.shape)}


def read_back(
    stored: Mapping[str, Mapping[str, Any]], shapes: Mapping[str, tuple[int, ...]], tensor: Callable[[str], Array]
) -> dict[str, Array]:
    """A block's parameters by official key, float64, from the record ``stored`` and the model's tensors.

    ``tensor(name)`` gives an initializer of the model. A channel whose BatchNorm scale is 0 has lost its convolution
    weights; any weights are right there, and zeros are returned. LookupError, ValueError or TypeError for a record that
    contradicts the block: ``shapes`` say how much there is to read, whatever the record says.
    """
    stored = {key: stored[key] for key in shapes}
    found: dict[str, Array] = {}
    for key, entry in stored.items():
        if "data" in entry:
            dtype = np.dtype(_KINDS[entry["dtype"]])
            raw = unpack(entry["data"], math.prod(shapes[key]) * dtype.itemsize)
            found[key] = np.frombuffer(raw, dtype).reshape(shapes[key]).astype(np.float64)
    for key, entry in stored.items():
        if "initializer" in entry or "parts" in entry:
            if "parts" in entry:
                values = _joined(entry["parts"], shapes[key], tensor)
            else:
                values = np.asarray(tensor(entry["initializer"]), dtype=np.float64).reshape(shapes[key])
            if "divided_by" in entry:
                scale, _ = affine(found.__getitem__, entry["divided_by"], entry["eps"])
                scale = per_output(scale * entry["factor"], values.ndim)
                values = np.divide(values, scale, out=np.zeros_like(values), where=scale != 0)
            else:
                values = values / entry.get("factor", 1.0)
            found[key] = values
    return {key: found[key] for key in shapes}


def runs(rows: Sequence[int]) -> list[list[int]]:
    """Row numbers as [start, stop] of each run of consecutive ones."""
    found: list[list[int]] = []
    for row in rows:
        if found and found[-1][1] == row:
            found[-1][1] += 1
        else:
            found.append([row, row + 1])
    return found


def _joined(parts: Sequence[Mapping[str, Any]], shape: tuple[int, ...], tensor: Callable[[str], Array]) -> Array:
    """A parameter whose rows stand in several tensors, each perhaps transposed or multiplied (see Template.rows)."""
    values = np.zeros(shape)
    for part in parts:
        if any(not 0 <= start <= stop for start, stop in part["rows"]):
            raise ValueError("rows that run backwards")
        if sum(stop - start for start, stop in part["rows"]) > len(values):
            raise ValueError("more rows than there are")
        rows = np.concatenate([np.arange(start, stop) for start, stop in part["rows"]])
        inner = values[rows].shape
        found = np.asarray(tensor(part["initializer"]), dtype=np.float64)
        found = found.reshape(-1, len(rows)).T if part["transposed"] else found
        values[rows] = found.reshape(inner) / part["factor"]
    return values
