"""External data: weights that lie in files beside the model. They are pointed at and copied, never loaded as a
whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from .errors import ExternalDataError


def locations(structure: onnx.ModelProto) -> list[str]:
    """The files that the model's tensors lie in, as the model names them, each once."""
    found: dict[str, None] = {}
    for tensor in _tensors(structure):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                if entry.key == "location":
                    found[entry.value] = None
    return list(found)


def _tensors(structure: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    graphs: list[Any] = [structure.graph]
    owners: list[Any] = list(structure.functions)
    while graphs or owners:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield sparse.values
                yield sparse.indices
        else:
            graph = owners.pop()
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    yield attribute.t
                elif attribute.type == onnx.AttributeProto.GRAPH:
                    graphs.append(attribute.g)
                elif attribute.type == onnx.AttributeProto.GRAPHS:
                    graphs.extend(attribute.graphs)


def resolve(location: str, folder: Path) -> Path:
    """The file that a location names. ExternalDataError if it leaves the folder (links followed) or does not exist."""
    base = Path(os.path.realpath(folder))
    path = Path(os.path.realpath(base / location))
    if not location or os.path.isabs(location) or not path.is_relative_to(base):
        raise ExternalDataError(f"the model's external data {location!r} lies outside the model's folder")
    if not path.is_file():
        raise ExternalDataError(f"the model's external data {location!r} is missing: there is no such file in {folder}")
    return path


def check(locations: Iterable[str], folder: Path | None) -> None:
    """Every external file exists inside the folder, or ExternalDataError. Without a folder there is nothing to look
    at.
    """
    if folder is not None:
        for location in locations:
            resolve(location, folder)


def read(tensor: onnx.TensorProto, folder: Path | None) -> np.ndarray[Any, Any]:
    """The value of one tensor, from its external file if it has one. ExternalDataError if that cannot be read."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if folder is None:
        raise ExternalDataError(
            "the model's weights are external data, and a model from memory has no folder to find them in"
        )
    path = resolve(entries.get("location", ""), folder)
    whole = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims)
    offset = int(entries.get("offset", 0))
    length = int(entries.get("length", path.stat().st_size - offset))
    with path.open("rb") as stream:
        stream.seek(offset)
        whole.raw_data = stream.read(length)
    if len(whole.raw_data) != length:
        raise ExternalDataError(f"the model's external data {path.name!r} is shorter than the model says")
    return numpy_helper.to_array(whole)
