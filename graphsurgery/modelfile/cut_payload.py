"""Initializers without the numbers in them, and with them again, to the byte."""

from __future__ import annotations

import onnx

from . import fields
from .source import BytesSource
from .wire import WireError, number_of, scan

_RAW = number_of(onnx.TensorProto, "raw_data")


def without_payload(field: bytes) -> bytes | None:
    """An initializer, tag and length included, with nothing as its ``raw_data``; None where that is not how it has its
    numbers, or where it is written so oddly that :func:`with_payload` could not give it back.
    """
    cut = _with(field, b"")
    if cut is None:
        return None
    return cut if _with(cut, _payload(field)) == field else None


def with_payload(field: bytes, numbers: bytes) -> bytes:
    """The same with these numbers. ValueError where it cannot have them."""
    whole = _with(field, numbers)
    if whole is None:
        raise ValueError("an initializer has no place for its numbers")
    return whole


def _payload(field: bytes) -> bytes:
    (outer,) = scan(BytesSource(field), 0, len(field))
    (raw,) = (each for each in scan(BytesSource(field), outer.body, outer.end) if each.number == _RAW)
    return field[raw.body : raw.end]


def _with(field: bytes, numbers: bytes) -> bytes | None:
    """With other numbers, or None."""
    source = BytesSource(field)
    try:
        (outer,) = scan(source, 0, len(field))
        inner = scan(source, outer.body, outer.end)
    except (WireError, ValueError):
        return None
    raw = [each for each in inner if each.number == _RAW]
    if len(raw) != 1:
        return None
    parts = (
        fields.replaced(fields.located(source, each), numbers).data if each is raw[0] else field[each.start : each.end]
        for each in inner
    )
    return fields.replaced(fields.located(source, outer), b"".join(parts)).data
