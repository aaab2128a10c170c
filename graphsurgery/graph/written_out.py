"""A model whose calls of local functions are written out, with the records of the blocks in its functions.

There a block in a function is a block of the main graph, under the names that its nodes and tensors have there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import NamedTuple

import onnx

from ..errors import ModelError
from ..modelfile.model import ModelFile
from ..modelfile.record import KEY, OUTPUT, UNNAMED, Insertion, read_insertions
from ..modelfile.subgraphs import reads
from ..modelfile.wire import text
from .call_paths import name_by_path
from .local_functions import Key, by_key, key_in, key_of, written_out
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
        if insertion is not None:
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


class _Level(NamedTuple):
    """The main graph, or a function where it is called."""

    nodes: Sequence[onnx.NodeProto]
    calls: Calls
    """that lead there"""
    tensors: Mapping[str, str]
    """name there -> name where the calls are written out"""


class _Names:
    """What is called how where calls are written out."""

    def __init__(self, model: onnx.ModelProto, flat: onnx.ModelProto, origins: Sequence[Origin]) -> None:
        functions, places = by_key(model.functions), inner_names(model, flat, origins)
        self._flat = list(zip(flat.graph.node, origins, strict=True))
        self._records = read_insertions(model)
        self._levels: dict[Key | None, _Level] = {None: _Level(model.graph.node, (), places[()])}
        for origin in origins:
            for run in runs(origin.calls):
                key = key_of(run[-1].node)
                self._levels.setdefault(key, _Level(functions[key].node, run, places[place_of(run)]))

    def record(self, insertion: Insertion) -> Insertion:
        """The record of a block as it is where the calls are written out."""
        level = self._levels.get(key_in(insertion.function) if insertion.function else None)
        if level is None:
            return replace(insertion, function=None)
        renamed, site = insertion.with_constants(level.tensors), insertion.site
        pair, named = renamed.qdq, self._nodes(level)

        def tensor(name: str) -> str:
            return level.tensors.get(name, name)

        def nodes(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(named.get(name, name) for name in names)

        giving = {position for position, node in enumerate(level.nodes) if site.tensor in node.output}
        near = {site.tensor, *(each.output_tensor for each in self._records if each.function == insertion.function)}
        moved = replace(
            site,
            tensor=tensor(site.tensor),
            consumers=self._readers(level, site.consumers, near),
            others=(*self._readers(level, site.others, near), *self._within(level, giving, {site.tensor})),
        )
        return replace(
            renamed,
            function=None,
            site=moved,
            output_tensor=tensor(insertion.output_tensor),
            nodes=nodes(insertion.nodes),
            qdq=replace(pair, tensor=tensor(pair.tensor), nodes=nodes(pair.nodes)) if pair else None,
        )

    def _nodes(self, level: _Level) -> dict[str, str]:
        """Name of a node of a graph -> its name where the calls are written out."""
        own = (each for each in self._flat if place_of(each[1].calls) == place_of(level.calls))
        return {origin.node.name: node.name for node, origin in own}

    def _readers(self, level: _Level, labels: Sequence[str], near: Set[str]) -> tuple[str, ...]:
        """What readers of some tensors are called: of a call, the nodes in it that read them; of an output of the
        function, those outside of the call. Those that are gone keep their names.
        """
        found = list[str]()
        for label in labels:
            if label.startswith(OUTPUT):
                there = list(self._outside(level, near))
            else:
                there = list(self._within(level, set(_positions(level, label, near)), near))
            found += there or [label]
        return tuple(dict.fromkeys(found))

    def _within(self, level: _Level, positions: Set[int], tensors: Set[str]) -> Iterator[str]:
        """The names of some nodes of a graph; of a call, those of the nodes in it that read some tensors."""
        depth, inner = len(level.calls), {level.tensors.get(name, name) for name in tensors}
        for n, (node, (calls, position, _)) in enumerate(self._flat):
            if place_of(calls[:depth]) == place_of(level.calls):
                is_call = len(calls) > depth
                here = calls[depth].position if is_call else position
                if here in positions and (not is_call or not reads(node).isdisjoint(inner)):
                    yield _label(n, node)

    def _outside(self, level: _Level, tensors: Set[str]) -> Iterator[str]:
        """The names of the nodes outside of a function that read some of its tensors."""
        depth, inner = len(level.calls), {level.tensors.get(name, name) for name in tensors}
        for n, (node, origin) in enumerate(self._flat):
            if place_of(origin.calls[:depth]) != place_of(level.calls) and not reads(node).isdisjoint(inner):
                yield _label(n, node)


def _label(position: int, node: onnx.NodeProto) -> str:
    return node.name or f"{node.op_type}#{position}"


def _positions(level: _Level, label: str, tensors: Set[str]) -> Iterator[int]:
    """Where in a graph the reader of a label stands. One without a name is known by its operator: since the record
    was made, nodes can have been inserted before it.
    """
    unnamed = UNNAMED.fullmatch(label)
    for position, node in enumerate(level.nodes):
        alike = unnamed and not node.name and node.op_type == unnamed[1] and not reads(node).isdisjoint(tensors)
        if node.name == label or alike:
            yield position
