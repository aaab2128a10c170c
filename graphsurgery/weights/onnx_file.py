"""Weights out of an ONNX file: an insertion by its id, or a module as an exporter wrote it."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ..errors import GraphSurgeryError, ModelError, WeightsError
from ..feature_map import Array, float_dtype
from ..graph.index import GraphIndex
from ..graph.module_paths import from_name
from ..modelfile import external_data
from ..modelfile.model import ModelFile
from ..modelfile.operators import operator
from ..modelfile.wire import text
from ..template.around import Around
from ..userblocks import NO_TRUST, Trust
from ..userblocks.inserted import block_of, weights_of
from .checkpoint import Checkpoint, widened
from .exported_graph import ExportedGraph
from .exported_names import BATCH_NORM, Export

if TYPE_CHECKING:
    from ..modelfile.record import Insertion

_Readers = dict[str, Callable[[], Array]]


class _Tensors(UserDict[str, Any]):
    """Arrays that are read from the file when they are asked for, out of their readers."""

    def __getitem__(self, key: str) -> Array:
        values: Array = self.data[key]()
        return values


def read(path: Path, trust: Trust) -> Checkpoint:
    """The weights in an ONNX file under every name that they can be asked for.

    ``ID.KEY`` for a block that graphsurgery inserted; initializers under their own names, which exporters take from the
    module (``model.8.attn.fc1.weight``); and, for weights that an exporter folded or renamed (``onnx::Conv_12``), the
    module path of the node that consumes them (see exported_names.py). Raises WeightsError and ModelError.
    """
    try:
        model = ModelFile.load(path)
        external_data.check(model.external_data, model.folder)
        model.insertions()
    except ModelError as error:
        raise WeightsError(str(error)) from None
    return of_model(model, path.name, trust)


def of_model(model: ModelFile, name: str, trust: Trust = NO_TRUST) -> Checkpoint:
    """The same of a model that is loaded already; ``name`` is what messages call it."""
    insertions = model.insertions()

    def tensor(name: str) -> Array:
        return widened(model.tensor(name))

    graph = model.structure.graph
    names = [text(each.name) or "" for each in graph.initializer if float_dtype(each.data_type)]
    floats: _Readers = {each: partial(tensor, each) for each in names}
    exported = ExportedGraph(GraphIndex(model), floats, tensor)
    export = Export(exported)
    readers = floats | export.found
    epsilons: dict[str, float] = {}
    for node in graph.node:
        if operator(node) == BATCH_NORM and len(node.input) > 1:
            own = text(node.input[1]) or ""
            module = own.removesuffix(".weight") if own.endswith(".weight") else from_name(text(node.name) or "")
            epsilons[module] = _epsilon(node)
    for insertion in insertions:
        others = {key: value for key, value in readers.items() if not key.startswith(f"{insertion.id}.")}
        readers = others | _of_insertion(insertion, model, trust)
        epsilons = {key: eps for key, eps in epsilons.items() if not f"{key}.".startswith(f"{insertion.id}.")}
    return Checkpoint(
        name,
        _Tensors(readers),
        epsilons,
        inserted={each.id: (each.module, each.settings) for each in insertions},
        description=exported.activations,
        exported=True,
        spare=frozenset(export.spare & set(readers)),
        unbiased=frozenset(export.unbiased),
    )


def _of_insertion(insertion: Insertion, model: ModelFile, trust: Trust) -> _Readers:
    def tensor(key: str) -> Array:
        return weights_of(insertion, model, trust)[key]

    try:
        feature = insertion.feature
        around = Around.of(insertion.gate, insertion.stored).parameters(feature.channels)
        keys = [*block_of(insertion, trust).parameters(feature), *around]
    except GraphSurgeryError:  # a block that is not installed here, or a module that may not be imported
        return {}
    return {f"{insertion.id}.{key}": partial(tensor, key) for key in keys}


def _epsilon(node: onnx.NodeProto) -> float:
    stored = next((each.f for each in node.attribute if each.name == "epsilon"), np.float32(1e-5))
    return float(f"{np.float32(stored):.6g}")  # the attribute is a float32, and 1e-3 was meant
