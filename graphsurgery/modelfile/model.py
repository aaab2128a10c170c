"""ModelFile: an ONNX model whose structure is in memory and whose weights stay where they are.

The file is kept as a list of pieces, one for each field of the model and of its main graph, in the file's own order.
A piece is a range of bytes of the source, or new bytes. An edit replaces, adds or drops pieces and gives a new
ModelFile; saving writes the pieces one after the other. So whatever an edit does not name keeps its bytes, and
undoing an edit gives back the bytes there were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx

from ..errors import ModelError
from . import external_data, saving, wire
from .fields import (
    GRAPH_OUTPUT,
    INITIALIZER,
    METADATA,
    NODE,
    Edit,
    Piece,
    end_of,
    located,
    metadata,
    new_pieces,
    replaced,
    slim_pieces,
)
from .record import Insertion, read_insertions
from .source import BytesSource, FileSource, Source
from .wire import number_of

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    ModelSource: TypeAlias = "str | Path | bytes | onnx.ModelProto | gs.Graph | ModelFile"

PROTOBUF_LIMIT = 2**31 - 1

_GRAPH = number_of(onnx.ModelProto, "graph")
_TOO_LARGE = (
    "{name} would hold 2 GB or more in one protobuf message, which no ONNX reader accepts; "
    "save the weights as external data first (onnx.save with save_as_external_data=True) and edit that file"
)


class ModelFile:
    """An ONNX model: structure in memory, payload by reference. Immutable: every edit gives a new one."""

    def __init__(self, model: Sequence[Piece], graph: Sequence[Piece], folder: Path | None, name: str) -> None:
        self._model = model
        self._graph = graph
        self.folder = folder
        """Where relative paths of external data start; None if the model came from memory."""
        self.name = name
        """How messages call the model."""

    # ------------------------------------------------------------------ loading

    @classmethod
    def load(cls, source: ModelSource, *, folder: str | Path | None = None) -> ModelFile:
        """Open a path, bytes, a ModelProto or an onnx-graphsurgeon Graph.

        ``folder`` says where external data lies when ``source`` is not a path. Raises ModelError if it is not an
        ONNX model.
        """
        if isinstance(source, ModelFile):
            return source
        where = Path(folder) if folder is not None else None
        if isinstance(source, str | Path):
            path = Path(source)
            return cls.from_source(_open(path), folder=where or path.parent, name=path.name)
        if isinstance(source, bytes | bytearray | memoryview):
            return cls.from_source(BytesSource(bytes(source)), folder=where)
        if type(source).__module__.partition(".")[0] == "onnx_graphsurgeon":
            import onnx_graphsurgeon as gs

            source = gs.export_onnx(source)
        if isinstance(source, onnx.ModelProto):
            try:
                return cls.from_source(BytesSource(source.SerializeToString()), folder=where)
            except Exception as error:  # protobuf's own error class differs between its implementations
                if isinstance(error, ModelError):
                    raise
                raise ModelError(_TOO_LARGE.format(name="the model")) from error
        raise ModelError(f"a model is a path, bytes, an onnx.ModelProto or a gs.Graph, not {type(source).__name__}")

    @classmethod
    def from_source(cls, source: Source, *, folder: Path | None, name: str = "the model") -> ModelFile:
        """Open the bytes of a source. Raises ModelError."""
        if source.size == 0:
            raise ModelError(f"{name} is empty")
        if source.size > PROTOBUF_LIMIT:
            raise ModelError(_TOO_LARGE.format(name=name).replace("would hold", "holds"))
        try:
            fields = wire.scan(source, 0, source.size)
            graphs = [f for f in fields if f.number == _GRAPH]
            if len(graphs) != 1 or graphs[0].kind != wire.LENGTH_DELIMITED:
                raise wire.WireError("it has no graph" if not graphs else "its graph is stored in several parts")
            graph = [located(source, f) for f in wire.scan(source, graphs[0].body, graphs[0].end)]
            model = cls([located(source, f) for f in fields], graph, folder, name)
            model._check_header()
        except (wire.WireError, EOFError) as error:
            raise ModelError(_explain(source, name, str(error))) from None
        except OSError as error:
            raise ModelError(f"{name} cannot be read: {error.strerror or error}") from None
        return model

    def _check_header(self) -> None:
        try:
            structure = self.structure
        except (ModelError, OSError):
            raise
        except Exception as error:  # DecodeError of whichever protobuf implementation is installed
            raise wire.WireError("its structure is not that of an ONNX model") from error
        if not structure.ir_version or not structure.opset_import:
            raise wire.WireError("it names no IR version or no operator set")

    # ------------------------------------------------------------------ reading

    @cached_property
    def _structure_bytes(self) -> bytes:
        return b"".join(self._slim_fields())

    def _slim_fields(self) -> Iterator[bytes]:
        model, graph = onnx.ModelProto.DESCRIPTOR, onnx.GraphProto.DESCRIPTOR
        for piece in self._model:
            if piece.number == _GRAPH:
                content = b"".join(slim_pieces(self._graph, graph))
                yield wire.delimited(_GRAPH, content)
            else:
                yield from slim_pieces([piece], model)

    @cached_property
    def structure(self) -> onnx.ModelProto:
        """The model without the payload of its tensors, to read: tensors over 1 kB have no data here."""
        model: onnx.ModelProto = onnx.ModelProto.FromString(self._structure_bytes)
        return model

    @property
    def opset(self) -> int:
        """Version of the default operator set; ModelError if the model imports none."""
        for entry in self.structure.opset_import:
            if entry.domain in ("", "ai.onnx"):
                return int(entry.version)
        raise ModelError(f"{self.name} does not import the standard ONNX operator set")

    @cached_property
    def external_data(self) -> tuple[str, ...]:
        """The files beside the model that its tensors lie in, as the model names them."""
        return tuple(external_data.locations(self.structure))

    def digest(self) -> str:
        """SHA-256 over the structure and the size of the file: equal before an insertion and after its removal."""
        return hashlib.sha256(self._structure_bytes + b"%d" % self.size).hexdigest()

    def tensor(self, name: str) -> np.ndarray[Any, Any]:
        """The value of one initializer or Constant, read from its place. KeyError if there is none of that name."""
        number, position = self._constants[name]
        content = self.content(number, position)
        if number == INITIALIZER:
            return external_data.read(onnx.TensorProto.FromString(content), self.folder)
        return external_data.read(onnx.NodeProto.FromString(content).attribute[0].t, self.folder)

    @cached_property
    def _constants(self) -> dict[str, tuple[int, int]]:
        """Where each constant is: field number and position, by name."""
        graph = self.structure.graph
        nodes = ((i, node) for i, node in enumerate(graph.node) if node.op_type == "Constant")
        table = {name: (NODE, position) for position, node in nodes for name in node.output}
        return table | {tensor.name: (INITIALIZER, i) for i, tensor in enumerate(graph.initializer)}

    def content(self, number: int, position: int) -> bytes:
        """The bytes of one field of the graph, by field number and position among the fields of that number."""
        return self._positions[number][position].content

    def pieces(self, number: int) -> Sequence[Piece]:
        """The fields of the graph of one number, in order, as ranges of bytes."""
        return self._positions.get(number, [])

    @cached_property
    def _positions(self) -> dict[int, list[Piece]]:
        table: dict[int, list[Piece]] = {}
        for piece in self._graph:
            table.setdefault(piece.number, []).append(piece)
        return table

    def insertions(self) -> list[Insertion]:
        """What graphsurgery has put into this model, oldest first."""
        return read_insertions(self.structure)

    # ------------------------------------------------------------------ editing

    def edited(self, edit: Edit) -> ModelFile:
        """A new model with these changes; everything else keeps its bytes and its order."""
        graph: list[Piece] = []
        counts: dict[int, int] = {}
        for piece in self._graph:
            position = counts.get(piece.number, 0)
            counts[piece.number] = position + 1
            if piece.number == NODE and position in edit.nodes:
                graph += [Piece.of(NODE, content) for content in edit.nodes[position]]
            key = (piece.number, position)
            if key not in edit.replaced:
                graph.append(piece)
            elif (content := edit.replaced[key]) is not None:
                graph.append(replaced(piece, content))
        last = [Piece.of(NODE, content) for content in edit.nodes.get(counts.get(NODE, 0), [])]
        for number, pieces in ((NODE, last), *new_pieces(edit.appended)):
            place = end_of(graph, number)
            graph[place:place] = pieces
        result = ModelFile(self._with_metadata(edit.metadata), graph, self.folder, self.name)
        result.__dict__["external_data"] = self.external_data  # no edit adds or drops any: no need to look again
        return result

    def _with_metadata(self, changes: Mapping[str, str | None]) -> list[Piece]:
        pieces: list[Piece] = []
        left = dict(changes)
        for piece in self._model:
            entry = onnx.StringStringEntryProto.FromString(piece.content) if piece.number == METADATA else None
            if entry is None or entry.key not in left:
                pieces.append(piece)
            elif (value := left.pop(entry.key)) is not None:
                pieces.append(metadata(entry.key, value))
        place = end_of(pieces, METADATA)
        pieces[place:place] = [metadata(key, value) for key, value in left.items() if value is not None]
        return pieces

    def with_outputs(self, tensors: Sequence[tuple[str, int]]) -> ModelFile:
        """A copy whose only graph outputs are these tensors, given as (name, element type): to look inside a model."""
        edit = Edit()
        edit.replaced = {(GRAPH_OUTPUT, i): None for i in range(len(self.pieces(GRAPH_OUTPUT)))}
        for name, kind in tensors:
            edit.append(GRAPH_OUTPUT, onnx.helper.make_tensor_value_info(name, kind, None))
        return self.edited(edit)

    # ------------------------------------------------------------------ writing

    @property
    def size(self) -> int:
        """Bytes of the saved model, without external data."""
        return sum(end - start for _, start, end in self.ranges())

    def ranges(self) -> Iterator[tuple[Source, int, int]]:
        """The saved model as ranges of sources, in order, neighbouring ranges joined. ModelError at 2 GB or more."""
        fields = (*(p for p in self._model if p.number != _GRAPH), *self._graph)
        if sum(p.end - p.start for p in fields) > PROTOBUF_LIMIT:
            raise ModelError(_TOO_LARGE.format(name=self.name))
        open_range: tuple[Source, int, int] | None = None
        for piece in self._all_pieces():
            if open_range and open_range[0] is piece.source and open_range[2] == piece.start:
                open_range = (piece.source, open_range[1], piece.end)
                continue
            if open_range:
                yield open_range
            open_range = (piece.source, piece.start, piece.end)
        if open_range:
            yield open_range

    def _all_pieces(self) -> Iterator[Piece]:
        for piece in self._model:
            if piece.number != _GRAPH:
                yield piece
                continue
            length = sum(p.end - p.start for p in self._graph)
            old = piece.source.read(piece.start, piece.body)
            header = wire.header_like(old, length)
            if header == old:
                yield piece._replace(end=piece.body)  # the same source bytes, so that the ranges join up
            else:
                yield Piece(_GRAPH, BytesSource(header), 0, 0, len(header))
            yield from self._graph

    def to_bytes(self) -> bytes:
        """The model as one bytes object, as ``save`` would write it."""
        return b"".join(source.read(start, end) for source, start, end in self.ranges())

    def proto(self) -> onnx.ModelProto:
        """The model as an onnx.ModelProto, weights included (external data is left external)."""
        model: onnx.ModelProto = onnx.ModelProto.FromString(self.to_bytes())
        return model

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the model, whole or not at all. See :func:`graphsurgery.modelfile.saving.save`."""
        return saving.save(self, Path(path), force=force)


def _open(path: Path) -> Source:
    try:
        return FileSource.open(path)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a directory, not a model file") from None
    except PermissionError:
        raise ModelError(f"{path} may not be read: no permission") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None


def _explain(source: Source, name: str, reason: str) -> str:
    """Say what a file is that is not a model, where its first bytes tell."""
    start = source.read(0, min(source.size, 512))
    if start[:4] == b"PK\x03\x04":
        return f"{name} is a zip archive (a PyTorch checkpoint, perhaps), not an ONNX model; export it to ONNX first"
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start):
        return f"{name} is a text file, not an ONNX model"
    if start[:1] == b"\x08" and ("ends in the middle" in reason or "longer than the message" in reason):
        return f"{name} is not a complete ONNX model: {reason} (was it cut off while it was copied?)"
    return f"{name} is not an ONNX model: {reason}"
