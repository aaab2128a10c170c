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

from ..errors import InsertionError, ModelError
from ..messages import brief, printable
from ..request import Argument, checked
from . import conversion, external_data, fields, limits, payload, saving, soundness, summary, wire
from .fields import FUNCTION, GRAPH_OUTPUT, INITIALIZER, METADATA, NODE, Edit, Piece
from .operators import operator
from .record import Insertion, read_insertions
from .source import BytesSource, FileSource, Source
from .wire import number_of

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    import onnx_ir as ir

    ModelSource: TypeAlias = "str | Path | bytes | onnx.ModelProto | ir.Model | gs.Graph | ModelFile"

_GRAPH = number_of(onnx.ModelProto, "graph")
_TOO_LARGE = (
    "{name} would hold 2 GB or more in one protobuf message, which no ONNX reader accepts; "
    "save the weights as external data first (onnx.save with save_as_external_data=True) and edit that file"
)


class ModelFile:
    """An ONNX model: its structure in memory, its weights where they are. Every edit gives a new one.

    Made by :meth:`load` and by the functions that edit a model, not by calling the class.

    Attributes
    ----------
    name:
        How messages call the model: the name of its file, or "the model".
    folder:
        Where relative paths of external data start; None for a model that came from memory.

    Examples
    --------
    >>> import graphsurgery as gsx
    >>> model = gsx.insert("yolov8n.onnx", "simam", after="/model.8")  # doctest: +SKIP
    >>> model  # doctest: +SKIP
    <ModelFile yolov8n.onnx: opset 17, IR version 8, 238 nodes, 12.8 MB, insertions: model.8.simam>
    >>> model.save("yolov8n-simam.onnx")  # doctest: +SKIP
    PosixPath('yolov8n-simam.onnx')
    """

    function: tuple[str, ...] | None = None
    """None: the main graph is a model's own, and not the nodes of a local function (see function_body.py)"""

    def __init__(self, model: Sequence[Piece], graph: Sequence[Piece], folder: Path | None, name: str) -> None:
        self._model = model
        self._graph = graph
        self.folder = folder
        self.name = name

    @property
    def whole(self) -> ModelFile:
        """The model that this one is, or whose function it is."""
        return self

    # ------------------------------------------------------------------ loading

    @classmethod
    def load(cls, source: ModelSource, *, folder: str | Path | None = None) -> ModelFile:
        """Open a model. Its weights are not read.

        Parameters
        ----------
        source:
            A path, bytes, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or an onnx-graphsurgeon ``Graph``; a
            ``ModelFile`` comes back as it is.
        folder:
            Where external data lies; None is the folder of the file, that which an ``onnx_ir.Model`` names, and no
            folder for another model in memory.

        Returns
        -------
        ModelFile
            The model. A file stays open until the model is no longer used.

        Raises
        ------
        ModelError
            If the file cannot be read, is not an ONNX model, or holds 2 GB or more.

        Examples
        --------
        >>> ModelFile.load(onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => () {}'))
        <ModelFile the model: opset 17, IR version 8, 0 nodes, 30 B>
        """
        if isinstance(source, ModelFile):
            return source
        where = Path(folder) if folder is not None else None
        if isinstance(source, str | Path):
            path = Path(source)
            return cls.from_source(_open(path), folder=where or path.parent, name=path.name)
        if isinstance(source, bytes | bytearray | memoryview):
            return cls.from_source(BytesSource(bytes(source)), folder=where)
        if (converted := conversion.message_of(source)) is not None:
            source, where = converted[0], where or converted[1]
        if isinstance(source, onnx.ModelProto):
            try:
                return cls.from_source(BytesSource(source.SerializeToString()), folder=where)
            except Exception as error:  # protobuf's own error class differs between its implementations
                if isinstance(error, ModelError):
                    raise
                raise ModelError(_TOO_LARGE.format(name="the model")) from error
        raise ModelError(
            f"a model is a path, bytes, an onnx.ModelProto, an onnx_ir.Model or a gs.Graph, not {type(source).__name__}"
        )

    @classmethod
    def from_source(cls, source: Source, *, folder: Path | None, name: str = "the model") -> ModelFile:
        """Open the bytes of a source under a name for messages. ModelError as for :meth:`load`."""
        if source.size == 0:
            raise ModelError(f"{name} is empty")
        if source.size > limits.PROTOBUF_BYTES:
            raise ModelError(_TOO_LARGE.format(name=name).replace("would hold", "holds"))
        try:
            found = wire.scan(source, 0, source.size)
            graphs = [f for f in found if f.number == _GRAPH]
            if len(graphs) != 1 or graphs[0].kind != wire.LENGTH_DELIMITED:
                raise wire.WireError("it has no graph" if not graphs else "its graph is stored in several parts")
            graph = [fields.located(source, f) for f in wire.scan(source, graphs[0].body, graphs[0].end)]
            model = cls([fields.located(source, f) for f in found], graph, folder, name)
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
        soundness.check_versions(structure, self.name)

    # ------------------------------------------------------------------ reading

    @cached_property
    def _structure_bytes(self) -> bytes:
        graph = fields.read(fields.slim(piece, onnx.GraphProto.DESCRIPTOR) for piece in self._graph)
        return fields.read(
            Piece.of(_GRAPH, graph) if piece.number == _GRAPH else fields.slim(piece, onnx.ModelProto.DESCRIPTOR)
            for piece in self._model
        )

    @cached_property
    def structure(self) -> onnx.ModelProto:
        """The model as a protobuf message without payload, to look at: tensors over 1 kB have no data in it."""
        model: onnx.ModelProto = onnx.ModelProto.FromString(self._structure_bytes)
        return model

    @cached_property
    def graph(self) -> onnx.GraphProto:
        """The main graph of the structure, to compute with. ModelError if a name in the model is not UTF-8 text, or a
        node lacks inputs or outputs.
        """
        graphs = soundness.graphs(self.structure)
        soundness.check_names(graphs, self.name)
        soundness.check_nodes(graphs, self.name)
        return self.structure.graph

    @cached_property
    def standard_opset(self) -> int | None:
        """Version of the standard operator set; None if the model does not import it."""
        return soundness.standard_opset(self.structure)

    @property
    def opset(self) -> int:
        """Version of the standard operator set. ModelError if the model does not import it."""
        if self.standard_opset is None:
            raise ModelError(f"{self.name} does not import the standard ONNX operator set")
        return self.standard_opset

    @cached_property
    def external_data(self) -> tuple[str, ...]:
        """The files beside the model that its tensors lie in, as the model names them."""
        if external_data.KEY.encode() not in self._structure_bytes:
            return ()
        return tuple(external_data.locations(self.structure))

    def digest(self) -> str:
        """SHA-256, in hexadecimal, over the structure and the size of the file.

        Equal before an insertion and after its removal. Weights over 1 kB are not read for it.
        """
        return hashlib.sha256(self._structure_bytes + b"%d" % self.size).hexdigest()

    def tensor(self, name: str) -> np.ndarray[Any, Any]:
        """Read the value of one weight.

        Parameters
        ----------
        name:
            Of an initializer, or of the output of a Constant node, of the main graph.

        Returns
        -------
        numpy.ndarray
            Of the shape and the element type of the tensor; ml_dtypes has the types that numpy lacks (bfloat16 ...).

        Raises
        ------
        KeyError
            If there is none of that name.
        ModelError
            If its bytes are not those of its shape and type.
        ExternalDataError
            If it lies in a file beside the model that cannot be read.
        """
        number, position = self._constants[name]
        content = self.content(number, position)
        if number == INITIALIZER:
            return external_data.read(onnx.TensorProto.FromString(content), self.folder)
        value = payload.of_constant(onnx.NodeProto.FromString(content))
        if value is None:
            raise ModelError(f"the Constant that gives {name!r} in {self.name} has no tensor as its value")
        return external_data.read(value, self.folder)

    @cached_property
    def _constants(self) -> dict[str, tuple[int, int]]:
        """Where each constant is: field number and position, by name."""
        graph = self.structure.graph
        nodes = ((i, node) for i, node in enumerate(graph.node) if operator(node) == "Constant")
        table = {name: (NODE, position) for position, node in nodes for name in node.output}
        return table | {tensor.name: (INITIALIZER, i) for i, tensor in enumerate(graph.initializer)}

    def content(self, number: int, position: int) -> bytes:
        """The bytes of one field of the graph, by field number and position among the fields of that number."""
        return self._positions[number][position].content

    def pieces(self, number: int) -> Sequence[Piece]:
        """The fields of the graph of one number, in order, as ranges of bytes."""
        return self._positions.get(number, [])

    def graph_fields(self) -> list[tuple[int, Piece]]:
        """All fields of the graph in the order of the file, each with its number in a graph; in a local function, which
        has others, 0 where it is no node.
        """
        return [(piece.number, piece) for piece in self._graph]

    @cached_property
    def _positions(self) -> dict[int, list[Piece]]:
        table: dict[int, list[Piece]] = {}
        for piece in self._graph:
            table.setdefault(piece.number, []).append(piece)
        return table

    def insertions(self) -> list[Insertion]:
        """What graphsurgery has inserted into this model, oldest first.

        Returns
        -------
        list[Insertion]
            One for each block, with its ``id``, settings, site, and the names of its nodes and weights.

        Raises
        ------
        InsertionError
            If a record in the metadata is damaged, or was written by a later version.
        """
        return read_insertions(self.structure)

    # ------------------------------------------------------------------ editing

    def edited(self, edit: Edit) -> ModelFile:
        """A new model with these changes; everything else keeps its bytes and its order."""
        graph = fields.edited(self._graph, edit)
        result = ModelFile(self._with_metadata(edit.metadata), graph, self.folder, self.name)
        result.__dict__["external_data"] = self.external_data  # no edit adds or drops any: no need to look again
        return result

    def _with_metadata(self, changes: Mapping[str, str | None]) -> Sequence[Piece]:
        if not changes:
            return self._model
        pieces: list[Piece] = []
        left = dict(changes)
        for piece in self._model:
            entry = onnx.StringStringEntryProto.FromString(piece.content) if piece.number == METADATA else None
            if entry is None or entry.key not in left:
                pieces.append(piece)
            elif (value := left.pop(entry.key)) is not None:
                pieces.append(fields.metadata(entry.key, value))
        place = fields.end_of(pieces, METADATA)
        pieces[place:place] = [fields.metadata(key, value) for key, value in left.items() if value is not None]
        return pieces

    def functions(self) -> list[Piece]:
        """The local functions, in order, as ranges of bytes."""
        return [piece for piece in self._model if piece.number == FUNCTION]

    def metadata(self) -> list[Piece]:
        """The entries of the model's metadata, in order, as ranges of bytes."""
        return [piece for piece in self._model if piece.number == METADATA]

    def with_function(self, old: Piece, content: bytes, metadata: Mapping[str, str | None]) -> ModelFile:
        """A new model in which one of its functions has another content."""
        model = [fields.replaced(piece, content) if piece is old else piece for piece in self._with_metadata(metadata)]
        result = ModelFile(model, self._graph, self.folder, self.name)
        result.__dict__["external_data"] = self.external_data
        return result

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

    def ranges(self) -> Iterator[fields.Range]:
        """The saved model as ranges of sources, in order, neighbouring ranges joined. ModelError at 2 GB or more."""
        parts = (*(p for p in self._model if p.number != _GRAPH), *self._graph)
        if sum(p.end - p.start for p in parts) > limits.PROTOBUF_BYTES:
            raise ModelError(_TOO_LARGE.format(name=self.name))
        return fields.ranges(self._all_pieces())

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
        """The model as one bytes object, weights included, as :meth:`save` writes it. ModelError at 2 GB or more."""
        return b"".join(source.read(start, end) for source, start, end in self.ranges())

    def proto(self) -> onnx.ModelProto:
        """The model as an ``onnx.ModelProto``, weights included; external data stays external. ModelError as above."""
        model: onnx.ModelProto = onnx.ModelProto.FromString(self.to_bytes())
        return model

    def to_ir(self) -> ir.Model:
        """The model as an ``onnx_ir.Model``, weights included; external data stays external.

        Returns
        -------
        onnx_ir.Model
            A new one, with the records of the insertions in its metadata.

        Raises
        ------
        MissingDependency
            If onnx_ir is not installed.
        ModelError
            If the model holds 2 GB or more.

        Examples
        --------
        >>> import graphsurgery as gsx
        >>> import onnx_ir as ir                                                                # doctest: +SKIP
        >>> model = ir.load("yolov8n.onnx")                                                     # doctest: +SKIP
        >>> model = gsx.insert(model, "simam", after="/model.8").to_ir()                        # doctest: +SKIP
        """
        return conversion.to_ir(self.proto(), self.folder)

    def to_gs(self) -> gs.Graph:
        """The model as a ``Graph`` of onnx-graphsurgeon, weights and external data included.

        A Graph has no metadata, and so none of the records by which insertions are verified and removed; ``adopt``
        makes them anew from a recipe.

        Returns
        -------
        onnx_graphsurgeon.Graph
            A new one.

        Raises
        ------
        ExternalDataError
            If external data cannot be read.
        ModelError
            If the model holds 2 GB or more.
        """
        return conversion.to_gs(self.proto(), self.folder)

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the model, whole or not at all: to a temporary file beside the target, which is then renamed.

        Parameters
        ----------
        path:
            Where to. In another folder than the model's own, external data is copied along.
        force:
            Whether files that exist already may be replaced.

        Returns
        -------
        pathlib.Path
            ``path``.

        Raises
        ------
        OutputError
            If it exists already (unless ``force``), cannot be written, or is the model's own external data.
        ExternalDataError
            If external data is not there to be copied.
        """
        where = checked("path", path, str, Argument(words="is the name of a file"))
        return saving.save(self, Path(where), force=force)

    # ------------------------------------------------------------------ showing

    def __repr__(self) -> str:
        inserted = ", ".join(insertion.id for insertion in self._readable_insertions())
        line = f"{self._in_short()}{f', insertions: {inserted}' if inserted else ''}"
        return printable(f"<ModelFile {self.name}: {line}>")

    def _repr_html_(self) -> str:
        return summary.as_html(self.name, self._in_short(), self._readable_insertions())

    def _in_short(self) -> str:
        size = sum(piece.end - piece.start for piece in self._all_pieces())
        return summary.in_short(self.structure, self.standard_opset, size)

    def _readable_insertions(self) -> list[Insertion]:
        """The insertions, to be shown; none where a record is damaged."""
        try:
            return self.insertions()
        except InsertionError:
            return []


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
    except ValueError as error:  # of os.open, for a zero byte or half of a surrogate pair
        raise ModelError(f"{brief(str(path))} cannot be the path of a file: {error}") from None


def _explain(source: Source, name: str, reason: str) -> str:
    """Say what a file is that is not a model, where its first bytes tell."""
    start = source.read(0, min(source.size, 512))
    if start[:4] == b"PK\x03\x04":
        return f"{name} is a zip archive (a PyTorch checkpoint, perhaps), not an ONNX model; export it to ONNX first"
    if start[4:8] == b"ORTM":
        return (
            f"{name} is in the ORT format of onnxruntime, in which a model can only be run; give the ONNX model that "
            "it was made from, and convert the result again"
        )
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start):
        return f"{name} is a text file, not an ONNX model"
    if start[:1] == b"\x08" and ("ends in the middle" in reason or "longer than the message" in reason):
        return f"{name} is not a complete ONNX model: {reason} (was it cut off while it was copied?)"
    return f"{name} is not an ONNX model: {reason}"
