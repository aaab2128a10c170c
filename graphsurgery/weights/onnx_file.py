"""Weights out of an ONNX file: an insertion by its id, or a module as an exporter wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ..errors import GraphSurgeryError, ModelError, WeightsError
from ..graph.index import GraphIndex
from ..graph.module_paths import from_name
from ..modelfile import external_data
from ..modelfile.model import ModelFile
from ..modelfile.wire import text
from ..template.residual_gate import GATE_KEY
from ..userblocks import Trust
from . import exported_names
from .checkpoint import Checkpoint
from .exported_graph import ExportedGraph
from .inserted import block_of, weights_of

if TYPE_CHECKING:
    from ..modelfile.record import Insertion

Array = np.ndarray[Any, Any]


class _Tensors(Mapping[str, Array]):
    """Arrays that are read from the file when they are asked for."""

    def __init__(self, readers: Mapping[str, Callable[[], Array]]) -> None:
        self._readers = readers

    def __getitem__(self, key: str) -> Array:
        return self._readers[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def read(path: Path, trust: Trust) -> Checkpoint:
    """The weights in an ONNX file under every name that they can be asked for.

    ``ID.KEY`` for a block that graphsurgery inserted; initializers under their own names, which exporters take from the
    module (``model.8.attn.fc1.weight``); and, for weights that an exporter folded or renamed (``onnx::Conv_12``), the
    module path of the node that consumes them (see exported_names.py). Raises WeightsError and ModelError.
    """
    try:
        model = ModelFile.load(path)
        external_data.check(model.external_data, model.folder)
        insertions = model.insertions()
    except ModelError as error:
        raise WeightsError(str(error)) from None
    readers: dict[str, Callable[[], Array]] = {}
    structure = model.structure
    for tensor in structure.graph.initializer:
        if tensor.data_type in _FLOATS:
            name = text(tensor.name) or ""
            readers[name] = lambda name=name: _wide(model.tensor(name))  # type: ignore[misc]
    export = exported_names.Reader(
        ExportedGraph(GraphIndex(model), set(readers), lambda name: _wide(model.tensor(name)))
    ).read()
    readers |= export.found
    epsilons: dict[str, float] = {}
    for node in structure.graph.node:
        if node.op_type == exported_names.BATCH_NORM:
            own = text(node.input[1]) or ""
            epsilons[own.removesuffix(".weight") if own.endswith(".weight") else _path(node)] = _epsilon(node)
    inserted: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for insertion in insertions:
        inserted[insertion.id] = (insertion.module, insertion.settings)
        others = {key: value for key, value in readers.items() if not key.startswith(f"{insertion.id}.")}
        readers = others | _of_insertion(insertion, model, trust)
        epsilons = {key: eps for key, eps in epsilons.items() if not f"{key}.".startswith(f"{insertion.id}.")}
    return Checkpoint(
        path.name,
        _Tensors(readers),
        epsilons,
        inserted=inserted,
        exported=True,
        spare=frozenset(export.spare & set(readers)),
        unbiased=frozenset(export.unbiased),
    )


_FLOATS = frozenset(
    (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
)


def _of_insertion(insertion: Insertion, model: ModelFile, trust: Trust) -> dict[str, Callable[[], Array]]:
    def reader(key: str) -> Callable[[], Array]:
        return lambda: weights_of(insertion, model, trust)[key]

    try:
        gate = [GATE_KEY] if insertion.gate == "residual" else []
        keys = [*block_of(insertion, trust).parameters(insertion.feature), *gate]
    except GraphSurgeryError:  # a block that is not installed here, or a module that may not be imported
        return {}
    return {f"{insertion.id}.{key}": reader(key) for key in keys}


def _path(node: onnx.NodeProto) -> str:
    return from_name(text(node.name) or "")


def _epsilon(node: onnx.NodeProto) -> float:
    stored = next((each.f for each in node.attribute if each.name == "epsilon"), np.float32(1e-5))
    return float(f"{np.float32(stored):.6g}")  # the attribute is a float32, and 1e-3 was meant


def _wide(values: Array) -> Array:
    return values.astype(np.float32) if values.dtype.itemsize < 4 else values
