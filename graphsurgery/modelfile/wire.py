"""The protobuf wire format, as far as a lossless edit needs it.

Messages are looked at as ranges of bytes and edited in place, never parsed and written again: what is not named in
an edit keeps its bytes, its order and its unknown fields, whoever wrote the file. Field numbers come from ONNX's own
descriptors. Source of the format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import onnx

from .source import BytesSource, Source
from .subgraphs import defined

LENGTH_DELIMITED = 2
_GROUP, _GROUP_END = 3, 4
_FIRST_WINDOW, _LAST_WINDOW = 1 << 9, 1 << 16
_HEADER = 20  # a tag and a length are at most ten bytes each

PAYLOAD_LIMIT = 1024
"""Tensor contents over this many bytes are payload: they stay where they are. Smaller ones (shapes, scalars) are
structure.
"""

_PAYLOAD_FIELDS = {
    onnx.TensorProto.DESCRIPTOR.fields_by_name[name].number
    for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
}


class WireError(ValueError):
    """The bytes are not well-formed protobuf."""


class Field(NamedTuple):
    """One field of a message: its bytes are [start, end), its content (without tag and length) is [body, end)."""

    number: int
    kind: int
    start: int
    body: int
    end: int


def text(value: object) -> str | None:
    """A string of a message; None for one that is not UTF-8, which protobuf hands over as bytes."""
    return value if isinstance(value, str) else None


def number_of(message: type[Any], field: str) -> int:
    """Field number by name, from the message class's descriptor."""
    return int(message.DESCRIPTOR.fields_by_name[field].number)


def varint(value: int, width: int = 1) -> bytes:
    """``value`` as a varint of at least ``width`` bytes (a padded varint is legal, and some writers leave them)."""
    out = bytearray()
    while value > 0x7F or len(out) + 1 < width:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(number: int, content: bytes) -> bytes:
    """A length-delimited field: tag, length, content."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(content)) + content


def header_like(old: bytes, length: int) -> bytes:
    """The tag and length of a field whose old tag and length are ``old``, for a content of ``length`` bytes.

    A length that was written longer than necessary stays as wide as it was, so that undoing an edit gives the same
    bytes. Once a new length needs that width itself, nothing would tell that the old one was padded; the tag, which
    is one byte and which no writer pads, is then padded to the same width, as a mark that the next edit reads.
    """
    tag, size = _read_varint(old, 0)
    old_length, end = _read_varint(old, size)
    shortest = len(varint(tag))
    padded = end - size > len(varint(old_length))
    width = end - size if padded else size - shortest + 1
    used_up = len(varint(length)) >= width
    return varint(tag, shortest + width - 1 if used_up else shortest) + varint(length, width)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise WireError("a number is longer than ten bytes")


def scan(source: Source, start: int, end: int) -> list[Field]:
    """The fields of the message in [start, end). Contents are skipped, not read. WireError if it is not a message.

    The window that is read grows where fields are small, and begins anew behind a large one, which may be payload.
    """
    fields: list[Field] = []
    groups: list[Field] = []  # open ones: the oldest way to nest; ONNX has none, but an unknown field may be one
    window, base, limit, size = b"", start, start, _FIRST_WINDOW
    position = start
    try:
        while position < end:
            if limit - position < _HEADER and limit < end:
                size = _FIRST_WINDOW if position > limit else min(4 * size, _LAST_WINDOW)
                window, base = source.read(position, min(end, position + size)), position
                limit = base + len(window)
            tag, offset = _read_varint(window, position - base)
            kind = tag & 7
            body = base + offset
            if kind == LENGTH_DELIMITED:
                length, offset = _read_varint(window, offset)
                body = base + offset
                stop = body + length
            elif kind == 0:
                stop = base + _read_varint(window, offset)[1]
            elif kind == 1:
                stop = body + 8
            elif kind == 5:
                stop = body + 4
            elif kind in (_GROUP, _GROUP_END):
                stop = body
            else:
                raise WireError(f"a field has the unknown wire type {kind}")
            if tag < 8:
                raise WireError("a field has the number 0")
            if stop > end:
                raise WireError("a field is longer than the message that holds it")
            field = Field(tag >> 3, kind, position, body, stop)
            if kind == _GROUP:
                groups.append(field)
            elif kind == _GROUP_END:
                if not groups or groups[-1].number != field.number:
                    raise WireError("a group ends that did not begin")
                field = groups.pop()._replace(end=stop)
            if not groups:
                fields.append(field)
            position = stop
    except (IndexError, EOFError):
        raise WireError("it ends in the middle of a field") from None
    if groups:
        raise WireError("it ends in the middle of a group")
    return fields


def slim(source: Source, descriptor: Any, start: int, end: int) -> bytes:
    """The message in [start, end) without the payload of the tensors in it, however deep they lie."""
    if end - start <= PAYLOAD_LIMIT:
        return source.read(start, end)
    is_tensor = descriptor is onnx.TensorProto.DESCRIPTOR
    parts: list[bytes] = []
    kept = start  # everything from here up to the next cut is taken over as it stands
    for field in scan(source, start, end):
        if field.end - field.body <= PAYLOAD_LIMIT or field.kind != LENGTH_DELIMITED:
            continue
        declared = descriptor.fields_by_number.get(field.number)
        if is_tensor and field.number in _PAYLOAD_FIELDS:
            parts.append(source.read(kept, field.start))
        elif declared is not None and declared.message_type is not None:
            content = slim(source, declared.message_type, field.body, field.end)
            if len(content) == field.end - field.body:
                continue
            parts += [source.read(kept, field.start), delimited(field.number, content)]
        else:
            continue
        kept = field.end
    if kept < end:
        parts.append(source.read(kept, end))
    return b"".join(parts)


def rewrite(data: bytes, change: Callable[[Field, bytes], bytes | None]) -> bytes:
    """The message ``data`` with the contents that ``change(field, content)`` returns; None leaves a field as it is.

    Only length-delimited fields are offered.
    """
    parts = []
    kept = 0
    for field in scan(BytesSource(data), 0, len(data)):
        if field.kind != LENGTH_DELIMITED:
            continue
        content = data[field.body : field.end]
        new = change(field, content)
        if new is None or new == content:
            continue
        parts += [data[kept : field.start], header_like(data[field.start : field.body], len(new)), new]
        kept = field.end
    parts.append(data[kept:])
    return b"".join(parts)


_NODE_INPUT = number_of(onnx.NodeProto, "input")
_NODE_OUTPUT = number_of(onnx.NodeProto, "output")
_NODE_ATTRIBUTE = number_of(onnx.NodeProto, "attribute")
_GRAPH_NODE = number_of(onnx.GraphProto, "node")
_GRAPH_OUTPUT = number_of(onnx.GraphProto, "output")
_ATTRIBUTE_GRAPHS = {number_of(onnx.AttributeProto, "g"), number_of(onnx.AttributeProto, "graphs")}
_VALUE_NAME = number_of(onnx.ValueInfoProto, "name")


def rename_inputs(node: bytes, names: Mapping[bytes, bytes]) -> bytes:
    """A NodeProto that reads ``names[t]`` wherever it read ``t``, in the subgraphs that capture ``t`` as well."""

    def change(field: Field, content: bytes) -> bytes | None:
        if field.number == _NODE_INPUT:
            return names.get(content)
        if field.number == _NODE_ATTRIBUTE:
            return rewrite(content, in_attribute)
        return None

    def in_attribute(field: Field, content: bytes) -> bytes | None:
        return _rename_captures(content, names) if field.number in _ATTRIBUTE_GRAPHS else None

    return rewrite(node, change)


def rename_outputs(node: bytes, names: Mapping[bytes, bytes]) -> bytes:
    """A NodeProto that writes ``names[t]`` wherever it wrote ``t``."""
    return rewrite(node, lambda field, content: names.get(content) if field.number == _NODE_OUTPUT else None)


def _rename_captures(graph: bytes, names: Mapping[bytes, bytes]) -> bytes:
    """A subgraph whose captures of outer tensors are renamed; names that it defines itself are its own."""
    own = defined(onnx.GraphProto.FromString(graph))
    outer = {old: new for old, new in names.items() if old.decode() not in own}
    if not outer:
        return graph

    def change(field: Field, content: bytes) -> bytes | None:
        if field.number == _GRAPH_NODE:
            return rename_inputs(content, outer)
        if field.number == _GRAPH_OUTPUT:
            return rewrite(content, lambda inner, name: outer.get(name) if inner.number == _VALUE_NAME else None)
        return None

    return rewrite(graph, change)
