"""FunctionBody: a local function as a model of its own, whose edits are edits of the function in its model.

Functions hold no initializers. So the body counts as a model of IR version 3, in which constants are nodes: whatever
writes into it writes them so.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from ..errors import InsertionError
from . import fields, wire
from .fields import GRAPH_INPUT, GRAPH_OUTPUT, NODE, Edit, Piece
from .model import ModelFile
from .source import BytesSource
from .wire import number_of

_GRAPH = number_of(onnx.ModelProto, "graph")
_OPSET = number_of(onnx.ModelProto, "opset_import")
_IR_VERSION = b"\x08\x03"
FUNCTION_NODE = number_of(onnx.FunctionProto, "node")
_FUNCTION_OPSET = number_of(onnx.FunctionProto, "opset_import")


class FunctionBody(ModelFile):
    """The nodes of a local function as the main graph of a model; its records are those of the model around."""

    def __init__(self, whole: ModelFile, piece: Piece) -> None:
        self._whole = whole
        self._piece = piece
        self._declared = _parsed(piece)
        self.function = (self._declared.domain, self._declared.name, self._declared.overload)
        self._fields = [
            fields.located(self._piece.source, each)
            for each in wire.scan(self._piece.source, self._piece.body, self._piece.end)
        ]
        super().__init__([*self._header()], [*self._body()], whole.folder, whole.name)

    @property
    def whole(self) -> ModelFile:
        """The model whose function it is."""
        return self._whole

    def _header(self) -> Iterator[Piece]:
        """The fields of the model: those of the function that a model has as well, and those of the model around."""
        yield Piece(-1, BytesSource(_IR_VERSION), 0, 1, len(_IR_VERSION))
        for piece in self._fields:
            if piece.number == _FUNCTION_OPSET:
                yield Piece.of(_OPSET, piece.content)
        yield Piece.of(_GRAPH, b"")
        yield from self._whole.metadata()

    def _body(self) -> Iterator[Piece]:
        """The fields of the graph."""
        declared = self._declared
        yield from (Piece.of(NODE, piece.content) for piece in self._fields if piece.number == FUNCTION_NODE)
        for number, names in ((GRAPH_INPUT, declared.input), (GRAPH_OUTPUT, declared.output)):
            yield from (Piece.of(number, onnx.ValueInfoProto(name=name).SerializeToString()) for name in names)

    def graph_fields(self) -> list[tuple[int, Piece]]:
        """Those of the function."""
        return [(fields.numbered(piece, FUNCTION_NODE), piece) for piece in self._fields]

    def digest(self) -> str:
        """That of the whole model."""
        return self._whole.digest()

    def edited(self, edit: Edit) -> ModelFile:
        """The whole model with these changes in the function, shapes aside, which it does not declare."""
        nodes = {key: value for key, value in edit.replaced.items() if key[0] == NODE}
        own = Edit(nodes, edit.nodes, restored=edit.restored)
        content = fields.read(fields.edited(self._fields, own, FUNCTION_NODE))
        return self._whole.with_function(self._piece, content, edit.metadata)


def bodies(model: ModelFile) -> Iterator[FunctionBody]:
    """The local functions of a model, in order."""
    return (FunctionBody(model, piece) for piece in model.functions())


def graph_of(model: ModelFile, function: tuple[str, ...] | None) -> ModelFile:
    """The model itself for None, else one of its functions. InsertionError for a function that is not there."""
    if function is None:
        return model
    found = next((body for body in bodies(model) if body.function == function), None)
    if found is None:
        raise InsertionError(f"{model.name} has no local function {function[1]!r}, which a block was inserted into")
    return found


def _parsed(piece: Piece) -> onnx.FunctionProto:
    """A function without the payload of its constants."""
    content = wire.slim(piece.source, onnx.FunctionProto.DESCRIPTOR, piece.body, piece.end)
    parsed: onnx.FunctionProto = onnx.FunctionProto.FromString(content)
    return parsed
