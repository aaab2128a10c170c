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

from ..errors import ExternalDataError, ModelError
from . import payload
from .wire import text

KEY = "location"
"""under which a tensor names its file; only models with external data have it in their bytes, and few others"""


def locations(structure: onnx.ModelProto) -> list[str]:
    """The files that the model's tensors lie in, as the model names them, each once."""
    found: dict[str, None] = {}
    for tensor in _tensors(structure):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                if entry.key == KEY:
                    found[text(entry.value) or ""] = None
    return list(found)


def _tensors(structure: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, however deep it lies, in the order of the messages."""
    pending: list[Any] = [structure]
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.TensorProto):
            yield message
        elif not isinstance(message, onnx.AttributeProto) or message.type not in _PLAIN:
            inner: list[Any] = []
            for field, value in message.ListFields():
                if field.message_type is not None and field.message_type.name not in _WITHOUT_TENSORS:
                    inner += [value] if hasattr(value, "ListFields") else value
            pending += reversed(inner)


_PLAIN = frozenset(
    onnx.AttributeProto.AttributeType.Value(n) for n in ("FLOAT", "INT", "STRING", "FLOATS", "INTS", "STRINGS")
)
_WITHOUT_TENSORS = ("OperatorSetIdProto", "StringStringEntryProto", "TensorAnnotation", "TypeProto", "ValueInfoProto")


def real(location: str, folder: Path) -> Path:
    """Where a location leads, links followed, whether or not there is such a file."""
    return Path(os.path.realpath(folder / location.replace("\0", "?")))  # no file has a zero byte in its name


def resolve(location: str, folder: Path) -> Path:
    """The file that a location names. ExternalDataError if it leaves the folder (links followed) or does not exist."""
    base, path = Path(os.path.realpath(folder)), real(location, folder)
    if not location or os.path.isabs(location) or not path.is_relative_to(base):
        raise ExternalDataError(f"the model's external data {location!r} lies outside the model's folder")
    if not os.path.isfile(path):  # False also for what cannot be the name of a file
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
    """The value of one tensor, from its external file if it has one.

    ModelError if its bytes are not those of its shape; ExternalDataError if the file cannot be read.
    """
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return payload.array(tensor)
    entries = {text(entry.key): text(entry.value) or "" for entry in tensor.external_data}
    if folder is None:
        raise ExternalDataError(
            "the model's weights are external data, and a model from memory has no folder to find them in"
        )
    path = resolve(entries.get(KEY, ""), folder)
    whole = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims)
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", path.stat().st_size - offset))
        if offset < 0 or length < 0 or offset + length > path.stat().st_size:
            raise ValueError
        with path.open("rb") as stream:
            stream.seek(offset)
            whole.raw_data = stream.read(length)
        return payload.array(whole)
    except (OSError, ValueError, ModelError):
        raise ExternalDataError(
            f"the model's external data {path.name!r} cannot be read, or does not have {tensor.name!r} in its place"
        ) from None
