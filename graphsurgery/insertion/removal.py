"""Remove insertions, and prove that the rest of a model is what it was.

A removal looks at the graph as it is, not at old bytes: it finds a block's nodes by name, joins what they stood
between, and drops what was added, the record too. However many insertions go, it is one edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..errors import InsertionError, ModelError
from ..graph.index import GraphIndex
from ..messages import closest
from ..modelfile.fields import INITIALIZER, NODE, VALUE_INFO, Edit
from ..modelfile.model import ModelFile
from ..modelfile.record import KEY, Insertion
from ..modelfile.source import Source
from .rewiring import rename_tensors

Range: TypeAlias = tuple[Source, int, int]
"""a source, and where a stretch of it begins and ends"""


def remove(model: ModelFile, ids: Sequence[str] | None = None) -> ModelFile:
    """Take insertions out of a model.

    Parameters
    ----------
    model:
        A model with insertions; it stays as it is.
    ids:
        Which ones, in any order; None is all.

    Returns
    -------
    ModelFile
        The model without them: with the bytes of the original file once all are gone.

    Raises
    ------
    InsertionError
        If one is not there, or another tool has changed its nodes.
    """
    insertions = {insertion.id: insertion for insertion in model.insertions()}
    for name in ids or ():
        if name not in insertions:
            known = f"it has {', '.join(insertions)}" if insertions else "it has none at all"
            candidates = closest(name, insertions) or tuple(insertions)
            raise InsertionError(f"the model has no insertion {name!r}; {known}", option="ids", candidates=candidates)
    chosen = [insertions[name] for name in ids] if ids is not None else list(insertions.values())
    return _without(model, chosen, list(insertions.values())) if chosen else model


def _without(model: ModelFile, chosen: Sequence[Insertion], every: Sequence[Insertion]) -> ModelFile:
    index, graph = GraphIndex(model), model.structure.graph
    removed: set[int] = set()
    joined: dict[str, str] = {}  # the output of a removed block -> its input
    for insertion in chosen:
        mine = _nodes(index, insertion)
        source, output = _boundary(index, mine, insertion)
        joined[output] = source
        removed |= mine
    edit = Edit()
    names = _names_after(index, joined)
    inputs: dict[int, dict[str, str]] = {}
    for old, new in names.items():
        for node_index in index.consumers.get(old, ()):
            if node_index not in removed:
                inputs.setdefault(node_index, {})[old] = new
    # a graph output gets its name back from the node that produces it
    rename_tensors(edit, index, inputs, {old: new for old, new in names.items() if old not in joined})
    edit.replaced |= {(NODE, node_index): None for node_index in removed}
    _drop(edit, INITIALIZER, [tensor.name for tensor in graph.initializer], {n for i in chosen for n in i.initializers})
    edit.metadata = {KEY + insertion.id: None for insertion in chosen}
    others = [other for other in every if KEY + other.id not in edit.metadata]
    declared = {name for insertion in every for name in insertion.value_info}
    for other, renamed in zip(others, _records_after(others, names, declared), strict=True):
        declared.difference_update(renamed.value_info)
        if renamed != other:
            edit.metadata.update([renamed.to_entry()])
    _drop(edit, VALUE_INFO, [value.name for value in graph.value_info], declared)
    return model.edited(edit)


def _records_after(others: Sequence[Insertion], names: Mapping[str, str], declared: set[str]) -> list[Insertion]:
    """The records of the insertions that stay. What was declared for the removed ones and is still there is theirs."""
    result = []
    free = declared - names.keys() - {name for other in others for name in other.value_info}
    for other in others:
        renamed = other.renamed(site=names, output=names)
        inherited = [name for name in (renamed.site.tensor, renamed.output_tensor) if name in free]
        free.difference_update(inherited)
        own = [name for name in other.value_info if name not in names]
        result.append(replace(renamed, value_info=(*own, *inherited)))
    return result


def _names_after(index: GraphIndex, joined: Mapping[str, str]) -> dict[str, str]:
    """New names of tensors once the blocks are gone, given what each of them joined (output -> source).

    The consumers of a block's output read its source instead; but the name of an output of the model stays, and the
    source takes it over.
    """
    names, kept = dict[str, str](), dict[str, str]()
    for output, source in joined.items():
        while source in joined:
            source = joined[source]
        names[output] = source
        if output in index.outputs:
            if source not in index.producer:
                raise InsertionError(
                    f"a block stands between the input {source!r} and the output {output!r} of the model"
                )
            kept[source] = output
    names |= kept
    names = {old: kept.get(new, new) for old, new in names.items()}
    return {old: new for old, new in names.items() if old != new}


def _drop(edit: Edit, number: int, names: Sequence[str], unwanted: set[str]) -> None:
    edit.replaced |= {(number, position): None for position, name in enumerate(names) if name in unwanted}


def _nodes(index: GraphIndex, insertion: Insertion) -> set[int]:
    """The node indexes of an insertion. InsertionError if another tool has removed or doubled one of them."""
    found = [index.node_names.get(name, []) for name in insertion.nodes]
    if any(len(node_indexes) != 1 for node_indexes in found):
        raise InsertionError(
            f"{insertion.id} cannot be taken out: another tool has changed its nodes since it was inserted; "
            "go back to the file from before"
        )
    return {node_indexes[0] for node_indexes in found}


def _boundary(index: GraphIndex, mine: set[int], insertion: Insertion) -> tuple[str, str]:
    """The tensor that the block reads and the one that it produces, as the graph is now."""
    produced = {name for node_index in mine for name in index.nodes[node_index].output}
    read = {name for node_index in mine for name in index.nodes[node_index].input if name}
    sources = [name for name in read - produced if not index.is_constant(name)]
    outputs = [name for name in produced if name in index.outputs or not mine.issuperset(index.consumers.get(name, ()))]
    if not outputs:  # a block that nothing reads: its last tensor
        outputs = [name for name in produced if name not in index.consumers]
    if len(sources) != 1 or len(outputs) != 1:
        raise InsertionError(
            f"{insertion.id} cannot be taken out: another tool has joined it with the graph around it; "
            "go back to the file from before"
        )
    return sources[0], outputs[0]


@dataclass(frozen=True)
class Unchanged:
    """Whether a model, its insertions taken out, is the model that they were put into; see :func:`unchanged`."""

    passed: bool | None
    """None: it was not decided."""
    sentence: str


def unchanged(model: ModelFile, original: ModelFile | None = None) -> Unchanged:
    """Take every insertion out and compare with the original: byte for byte if it is given, else by the recorded
    digest.
    """
    insertions = model.insertions()
    try:
        bare = remove(model)
    except (InsertionError, ModelError) as error:
        return Unchanged(False, str(error))
    if original is not None:
        if same_bytes(bare, original):
            return Unchanged(True, "without the insertions it is the original, byte for byte")
        return Unchanged(False, f"without the insertions it is not {original.name}")
    if insertions and bare.digest() != insertions[0].original:
        return Unchanged(False, "without the insertions its structure is not the one that they were put into")
    return Unchanged(
        True, "without the insertions its structure is the original's (give the original to compare the weights too)"
    )


def same_bytes(first: ModelFile, second: ModelFile) -> bool:
    """Whether two models would be saved as the same bytes. Ranges that lie in one and the same source are not read."""
    return first.size == second.size and same_ranges(list(first.ranges()), list(second.ranges()))


def same_ranges(first: Sequence[Range], second: Sequence[Range]) -> bool:
    """Whether ranges of the same length in all hold the same bytes."""
    if [(id(s), a, b) for s, a, b in first] == [(id(s), a, b) for s, a, b in second]:
        return True
    return all(a == b for a, b in zip(chunks(first), chunks(second), strict=True))


def chunks(ranges: Iterable[Range], size: int = 1 << 20) -> Iterator[bytes]:
    """The bytes of the ranges in chunks of ``size``, wherever the ranges begin and end."""
    buffer = b""
    for source, start, end in ranges:
        while start < end:
            stop = min(end, start + size)
            buffer += source.read(start, stop)
            start = stop
            while len(buffer) >= size:
                yield buffer[:size]
                buffer = buffer[size:]
    yield buffer
