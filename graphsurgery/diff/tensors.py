"""Comparing two weights: by type, shape, place and bytes, without decoding them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from ..errors import ExternalDataError
from ..insertion.removal import Range, same_ranges
from ..messages import as_text
from ..modelfile import external_data
from ..modelfile.fields import Piece
from ..modelfile.source import FileSource
from .changes import NONE, arrow, unequal


def tensor_text(tensor: onnx.TensorProto) -> str:
    """Type and shape of a weight: ``float [256, 64, 1, 1]``."""
    kinds = onnx.TensorProto.DataType
    kind = kinds.Name(tensor.data_type).lower() if tensor.data_type in kinds.values() else f"type {tensor.data_type}"
    return f"{kind} {list(tensor.dims)}"


Weight = tuple[onnx.TensorProto, Piece, Path | None]
"""a weight without payload, where its message lies in the model, and the folder of the model's external data"""


def tensor_details(a: Weight, b: Weight) -> tuple[str, ...]:
    """What is not the same in two weights of one name, () if all is. ExternalDataError if one cannot be read."""
    (old, old_piece, old_folder), (new, new_piece, new_folder) = a, b
    same = _same_bytes(*((piece.source, piece.body, piece.end) for piece in (old_piece, new_piece)))
    before, after = tensor_text(old), tensor_text(new)
    details = [f"{before} -> {after}"] if before != after else []
    outside = [tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in (old, new)]
    details += _places(old, new, outside)
    if before != after:
        pass  # the values of another shape or type are others
    elif all(outside):
        if old_folder and new_folder and not _same_external(_external(old, old_folder), _external(new, new_folder)):
            details.append("its values differ")
    elif not same and not details and not _same_values(old_piece, new_piece):
        details.append("its values differ, or are stored in another way")
    if not same and old.doc_string != new.doc_string:
        details.append(f"doc_string: {arrow(old.doc_string, new.doc_string)}")
    return tuple(details)


def _same_bytes(a: Range, b: Range) -> bool:
    return a[2] - a[1] == b[2] - b[1] and same_ranges([a], [b])


def _same_values(a: Piece, b: Piece) -> bool:
    """Whether two weights differ in nothing but their descriptions."""
    tensors = [onnx.TensorProto.FromString(piece.content) for piece in (a, b)]
    for tensor in tensors:
        tensor.ClearField("doc_string")
    return bool(tensors[0] == tensors[1])


def _places(a: onnx.TensorProto, b: onnx.TensorProto, outside: list[bool]) -> Iterator[str]:
    if outside[0] != outside[1]:
        yield " -> ".join("in an external file" if external else "in the model" for external in outside)
    elif outside[0]:
        before, after = ({entry.key: entry.value for entry in tensor.external_data} for tensor in (a, b))
        for key, old, new in unequal(before, after):
            old, new = (NONE if text is None else as_text(text) for text in (old, new))
            yield f"external {as_text(key)}: {old} -> {new}"


def _external(tensor: onnx.TensorProto, folder: Path) -> tuple[Path, int, int]:
    """(file, start, end) of a weight outside the model. ExternalDataError if it does not lie there."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = external_data.resolve(entries.get("location", ""), folder)
    try:
        start = int(entries.get("offset", 0))
        end = start + int(entries["length"]) if "length" in entries else path.stat().st_size
    except (ValueError, OSError) as error:
        raise ExternalDataError(f"the place of {tensor.name} in the external data cannot be read: {error}") from None
    return path, start, end


def _same_external(a: tuple[Path, int, int], b: tuple[Path, int, int]) -> bool:
    if a[1:] == b[1:] and a[0].samefile(b[0]):
        return True
    try:
        return _same_bytes(*((FileSource.open(path), start, end) for path, start, end in (a, b)))
    except (EOFError, OSError):
        names = " or ".join(dict.fromkeys(path.name for path, _, _ in (a, b)))
        raise ExternalDataError(f"the external data {names!r} is shorter than the model says or not readable") from None
