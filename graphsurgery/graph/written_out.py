"""A model whose calls of local functions are written out, with the records of the blocks in its functions.

There a block in a function is a block of the main graph, under the names that its nodes and tensors have there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import onnx

from ..errors import ModelError
from ..modelfile.model import ModelFile
from ..modelfile.record import KEY, OUTPUT, UNNAMED, Insertion, read_insertions
from ..modelfile.subgraphs import reads
from ..modelfile.wire import text
from .call_paths import name_by_path
from .local_functions import by_key, key_in, key_of, written_out
from .origins import Calls, Origin, inner_names, origins, place_of, runs


def with_origins(model: onnx.ModelProto, name: str) -> tuple[onnx.ModelProto, list[Origin]] | None:
    """The model with its calls written out, its nodes named by their module paths, and where these come from; None
    where what its functions say is not what becomes of the calls. ModelError where they cannot be written out.
    """
    flat = written_out(model, name)
    found = origins(model, flat)
    if found is None:
        return None
    records = {KEY + each.id: each for each in read_insertions(model)}
    graphs = {key: key_in(each.function) if each.function else None for key, each in records.items()}
    name_by_path(flat, found, {(graphs[key], name) for key, each in records.items() for name in each.nodes})
    renamed = _Names(model, flat, found)
    for entry in flat.metadata_props:
        insertion = records.get(text(entry.key) or "")
        if insertion is not None and insertion.function is not None:
            entry.value = renamed.record(insertion).to_entry()[1]
    return flat, found


def without_calls(model: ModelFile, *, always: bool = False) -> ModelFile:
    """The model with its calls written out, its weights included; the model itself if no block is in a function, unless
    ``always``. ModelError where they cannot be written out.
    """
    if not always and all(insertion.function is None for insertion in model.insertions()):
        return model
    made = with_origins(model.proto(), model.name)
    if made is None:
        raise ModelError(f"the functions of {model.name} cannot be written out")
    flat = ModelFile.load(made[0], folder=model.folder)
    flat.name = model.name
    return flat


def as_run(model: ModelFile, insertion: Insertion) -> tuple[ModelFile, Insertion]:
    """What is to be run for a block, and its record there: the model, or that with its calls written out."""
    if insertion.function is None:
        return model, insertion
    flat = without_calls(model)
    return flat, next(each for each in flat.insertions() if each.id == insertion.id)


class _Names:
    """What is called how where calls are written out."""

    def __init__(self, model: onnx.ModelProto, flat: onnx.ModelProto, origins: Sequence[Origin]) -> None:
        functions, places = by_key(model.functions), inner_names(model, flat, origins)
        self._flat = list(zip(flat.graph.node, origins, strict=True))
        self._functions = {(each.domain, each.name, each.overload): each for each in model.functions}
        self._records = [each for each in read_insertions(model) if each.function is not None]
        self._runs: dict[tuple[str, ...], Calls] = {}
        self._tensors: dict[tuple[str, ...], dict[str, str]] = {}
        self._nodes: dict[tuple[tuple[str, ...], str], str] = {}
        for node, origin in self._flat:
            for run in runs(origin.calls):
                called = functions[key_of(run[-1].node)]
                function = (called.domain, called.name, called.overload)
                self._runs.setdefault(function, run)
                self._tensors.setdefault(function, places[place_of(run)])
                self._nodes.setdefault((function, origin.node.name), node.name)

    def record(self, insertion: Insertion) -> Insertion:
        """The record of a block in a function, as it is where the calls are written out."""
        function, site = insertion.function, insertion.site
        assert function is not None
        constants = self._tensors.get(function, {})
        renamed = insertion.with_constants(constants)
        pair = renamed.qdq

        def tensor(name: str) -> str:
            return constants.get(name, name)

        def nodes(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(self._nodes.get((function, name), name) for name in names)

        moved = replace(
            site,
            tensor=tensor(site.tensor),
            consumers=self._readers(insertion, site.consumers),
            others=self._readers(insertion, site.others),
        )
        return replace(
            renamed,
            function=None,
            site=moved,
            output_tensor=tensor(insertion.output_tensor),
            nodes=nodes(insertion.nodes),
            qdq=replace(pair, tensor=tensor(pair.tensor), nodes=nodes(pair.nodes)) if pair else None,
        )

    def _readers(self, insertion: Insertion, labels: Sequence[str]) -> tuple[str, ...]:
        """What readers in a function are called: of a call, the nodes in it that read; of an output of the function,
        those outside of the call. Those that are gone keep their names.
        """
        function = insertion.function
        assert function is not None
        run, depth = self._runs.get(function, ()), len(self._runs.get(function, ()))
        near = {insertion.site.tensor, *(each.output_tensor for each in self._records if each.function == function)}
        tensors = {self._tensors[function].get(name, name) for name in near} if run else set[str]()
        found = list[str]()
        for label in labels:
            positions = set(self._positions(function, label, near))
            outside = label.startswith(OUTPUT)
            there = [
                node.name or f"{node.op_type}#{n}"
                for n, (node, (calls, position, _)) in enumerate(self._flat)
                if (within := place_of(calls[:depth]) == place_of(run)) != outside
                and (not within or (calls[depth].position if len(calls) > depth else position) in positions)
                and ((within and len(calls) == depth) or not tensors.isdisjoint(reads(node)))
            ]
            found += there or [label]
        return tuple(dict.fromkeys(found))

    def _positions(self, function: tuple[str, ...], label: str, tensors: Collection[str]) -> Iterator[int]:
        """Where in a function the reader of a label stands. One without a name is known by its operator: since the
        record was made, nodes can have been inserted before it.
        """
        unnamed = UNNAMED.fullmatch(label)
        for position, node in enumerate(self._functions[function].node):
            alike = unnamed and not node.name and node.op_type == unnamed[1] and not reads(node).isdisjoint(tensors)
            if node.name == label or alike:
                yield position
