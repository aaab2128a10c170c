"""Pieces: the fields of a model as ranges of bytes; Edit: what is to be replaced, added and dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import onnx

from . import wire
from .source import BytesSource, Source
from .wire import number_of

FUNCTION = number_of(onnx.ModelProto, "functions")
METADATA = number_of(onnx.ModelProto, "metadata_props")
NODE = number_of(onnx.GraphProto, "node")
INITIALIZER = number_of(onnx.GraphProto, "initializer")
VALUE_INFO = number_of(onnx.GraphProto, "value_info")
GRAPH_INPUT = number_of(onnx.GraphProto, "input")
GRAPH_OUTPUT = number_of(onnx.GraphProto, "output")

Range: TypeAlias = tuple[Source, int, int]
"""bytes [start, end) of a source"""


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

    @property
    def data(self) -> bytes:
        """Its bytes, tag and length included."""
        return self.source.read(self.start, self.end)


@dataclass
class Edit:
    """What is to change in a model: new contents by field number and position among the fields of that number."""

    replaced: dict[tuple[int, int], bytes | None] = field(default_factory=dict)
    """(field number of the graph, position) -> new content, or None to drop it"""
    nodes: dict[int, list[bytes]] = field(default_factory=dict)
    """nodes to put before the node at this position (the number of nodes: at the end)"""
    appended: dict[int, list[bytes]] = field(default_factory=dict)
    """field number of the graph -> contents to add after the last field of that number"""
    restored: dict[int, list[bytes]] = field(default_factory=dict)
    """whole fields of the graph, tags and lengths included, to put before the field at this place among all fields of
    the graph (the number of fields: at the end)"""
    metadata: dict[str, str | None] = field(default_factory=dict)
    """model metadata to set (in place where the key exists, else at the end) or, with None, to drop"""

    def append(self, number: int, message: Any) -> None:
        """Add a field of the graph after the last one of its number."""
        self.appended.setdefault(number, []).append(message.SerializeToString())

    def drop(self, number: int, position: int) -> None:
        """Leave out a field of the graph."""
        self.replaced[number, position] = None


def edited(pieces: Sequence[Piece], edit: Edit, node: int = NODE) -> list[Piece]:
    """The fields of a graph with the changes of an edit.

    ``node``: the number that its nodes have; in a function it is another one, and an edit is of its nodes alone.
    """
    result: list[Piece] = []
    counts: dict[int, int] = {}
    for place, piece in enumerate(pieces):
        result += map(whole, edit.restored.get(place, ()))
        number = numbered(piece, node)
        position = counts.get(number, 0)
        counts[number] = position + 1
        if number == NODE and position in edit.nodes:
            result += [Piece.of(node, content) for content in edit.nodes[position]]
        key = (number, position)
        if key not in edit.replaced:
            result.append(piece)
        elif (content := edit.replaced[key]) is not None:
            result.append(replaced(piece, content))
    result += map(whole, edit.restored.get(len(pieces), ()))
    last = edit.nodes.get(counts.get(NODE, 0), [])
    for number, contents in ((node, last), *edit.appended.items()):
        place = end_of(result, number)
        result[place:place] = [Piece.of(number, content) for content in contents]
    return result


def numbered(piece: Piece, node: int) -> int:
    """The number that a field has in a graph whose nodes have the number ``node``; 0 for one that only functions
    have."""
    return piece.number if node == NODE else NODE if piece.number == node else 0


def whole(data: bytes) -> Piece:
    """A field from its bytes, tag and length included."""
    source = BytesSource(data)
    (found,) = wire.scan(source, 0, len(data))
    return located(source, found)


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
    """A new entry of the model's metadata."""
    return Piece.of(METADATA, onnx.StringStringEntryProto(key=key, value=value).SerializeToString())


def end_of(pieces: Sequence[Piece], number: int) -> int:
    """Where a new field of this number belongs: after the last of its kind, else where protobuf would write it."""
    later = 0
    for place in range(len(pieces), 0, -1):
        if pieces[place - 1].number == number:
            return place
        if not later and pieces[place - 1].number < number:
            later = place
    return later


def slim(piece: Piece, descriptor: Any) -> Piece:
    """A field of a message of this kind without payload: the piece itself where it is small."""
    if piece.end - piece.body <= wire.PAYLOAD_LIMIT:
        return piece
    declared = descriptor.fields_by_number.get(piece.number)
    if declared is None or declared.message_type is None:
        return piece
    return Piece.of(piece.number, wire.slim(piece.source, declared.message_type, piece.body, piece.end))


def ranges(pieces: Iterable[Piece]) -> Iterator[Range]:
    """The bytes of pieces in order, neighbouring ranges of one source joined into one."""
    joined: Range | None = None
    for piece in pieces:
        if joined and joined[0] is piece.source and joined[2] == piece.start:
            joined = (piece.source, joined[1], piece.end)
            continue
        if joined:
            yield joined
        joined = (piece.source, piece.start, piece.end)
    if joined:
        yield joined


def read(pieces: Iterable[Piece]) -> bytes:
    """The bytes of pieces in order."""
    return b"".join(source.read(start, end) for source, start, end in ranges(pieces))
