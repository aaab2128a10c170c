"""Pieces: the fields of a model as ranges of bytes, and the edits that replace, add and drop them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import onnx

from . import wire
from .source import BytesSource, Source
from .wire import number_of

METADATA = number_of(onnx.ModelProto, "metadata_props")
NODE = number_of(onnx.GraphProto, "node")
INITIALIZER = number_of(onnx.GraphProto, "initializer")
VALUE_INFO = number_of(onnx.GraphProto, "value_info")
GRAPH_OUTPUT = number_of(onnx.GraphProto, "output")


class Piece(NamedTuple):
    """One field of the model or of its graph: bytes [start, end) of ``source``, the content from ``body`` on."""

    number: int
    source: Source
    start: int
    body: int
    end: int

    @classmethod
    def of(cls, number: int, content: bytes) -> Piece:
        """A new field."""
        data = wire.delimited(number, content)
        return cls(number, BytesSource(data), 0, len(data) - len(content), len(data))

    @property
    def content(self) -> bytes:
        return self.source.read(self.body, self.end)


@dataclass
class Edit:
    """What is to change in a model: new contents by field number and position among the fields of that number."""

    replaced: dict[tuple[int, int], bytes | None] = field(default_factory=dict)
    """(field number of the graph, position) -> new content, or None to drop it"""
    nodes: dict[int, list[bytes]] = field(default_factory=dict)
    """nodes to put in front of the node at this position (the number of nodes: at the end)"""
    appended: dict[int, list[bytes]] = field(default_factory=dict)
    """field number of the graph -> contents to add behind the last field of that number"""
    metadata: dict[str, str | None] = field(default_factory=dict)
    """model metadata to set (in place where the key exists, else at the end) or, with None, to drop"""

    def append(self, number: int, message: Any) -> None:
        """Add a field of the graph after the last one of its number."""
        self.appended.setdefault(number, []).append(message.SerializeToString())


def located(source: Source, f: wire.Field) -> Piece:
    """The field as a piece. One of another wire type than a message's is unknown to protobuf, so it gets no known
    number.
    """
    return Piece(f.number if f.kind == wire.LENGTH_DELIMITED else -f.number, source, f.start, f.body, f.end)


def replaced(piece: Piece, content: bytes) -> Piece:
    """The piece with a new content and, where it was written oddly, as odd a length in front."""
    header = wire.header_like(piece.source.read(piece.start, piece.body), len(content))
    data = header + content
    return Piece(piece.number, BytesSource(data), 0, len(header), len(data))


def metadata(key: str, value: str) -> Piece:
    return Piece.of(METADATA, onnx.StringStringEntryProto(key=key, value=value).SerializeToString())


def new_pieces(contents: Mapping[int, Iterable[bytes]]) -> Iterator[tuple[int, list[Piece]]]:
    for number, items in contents.items():
        yield number, [Piece.of(number, content) for content in items]


def end_of(pieces: Sequence[Piece], number: int) -> int:
    """Where a new field of this number belongs: behind the last of its kind, else where protobuf would write it."""
    later = 0
    for place in range(len(pieces), 0, -1):
        if pieces[place - 1].number == number:
            return place
        if not later and pieces[place - 1].number < number:
            later = place
    return later


def slim_pieces(pieces: Sequence[Piece], descriptor: Any) -> Iterator[bytes]:
    """The fields without payload; a run of small neighbours is read at once."""
    run: tuple[Source, int, int] | None = None
    for piece in pieces:
        declared = descriptor.fields_by_number.get(piece.number)
        large = (
            piece.end - piece.body > wire.PAYLOAD_LIMIT and declared is not None and declared.message_type is not None
        )
        if run and (large or run[0] is not piece.source or run[2] != piece.start):
            yield run[0].read(run[1], run[2])
            run = None
        if large:
            yield wire.delimited(piece.number, wire.slim(piece.source, declared.message_type, piece.body, piece.end))
        else:
            run = (piece.source, run[1] if run else piece.start, piece.end)
    if run:
        yield run[0].read(run[1], run[2])
