"""Remove insertions, and prove that the rest of a model is what it was.

A removal looks at the graph as it is, not at old bytes: it finds a block's nodes by name, joins what they stood
between, and drops what was added, the record too. However many insertions go, it is one edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..errors import InsertionError, ModelError
from ..graph import validity
from ..graph.index import GraphIndex
from ..graph.shapes import ShapeTable
from ..messages import closest
from ..modelfile import fields
from ..modelfile.fields import INITIALIZER, NODE, VALUE_INFO, Edit
from ..modelfile.function_body import FUNCTION_NODE, graph_of
from ..modelfile.model import ModelFile
from ..modelfile.record import KEY, Insertion
from ..modelfile.source import Source
from ..modelfile.subgraphs import reads
from .original_order import OriginalOrder, Returning
from .ownership import Owned, Ownership, check_types, needed
from .rewiring import rename_tensors, with_names

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
    return without(model, chosen, list(insertions.values())) if chosen else model


def without(model: ModelFile, chosen: Sequence[Insertion], every: Sequence[Insertion]) -> ModelFile:
    """A model without the chosen ones of its insertions. InsertionError where one cannot be taken out."""
    for function in dict.fromkeys(insertion.function for insertion in chosen):
        of = [[each for each in some if each.function == function] for some in (chosen, every)]
        model = _without(graph_of(model, function), *of)
    return model


def _without(model: ModelFile, chosen: Sequence[Insertion], every: Sequence[Insertion]) -> ModelFile:
    """The whole model without some of the insertions of one of its graphs."""
    index, graph = GraphIndex(model), model.structure.graph
    ownership = Ownership(index)
    blocks = {insertion.id: ownership.find(insertion) for insertion in chosen}
    joined = {blocks[each.id].output: blocks[each.id].source for each in chosen if each.replaced is None}
    removed = frozenset[int]().union(*(block.nodes for block in blocks.values()))
    kept = needed(index, removed)
    removed -= _constants(index, removed, kept)
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
    read = {name for node_index in removed for name in index.reads(node_index)}
    recorded = {name for insertion in chosen for name in insertion.added}
    weights = recorded & read - kept
    _drop(edit, INITIALIZER, [tensor.name for tensor in graph.initializer], weights)
    edit.metadata = {KEY + insertion.id: None for insertion in chosen}
    others = [other for other in every if KEY + other.id not in edit.metadata]
    declared = _declared(index, every)
    inheritable = declared.difference(name for each in chosen if each.replaced for name in each.value_info)
    after = _records_after(others, names, inheritable)
    edit.restored = _put_back(index, chosen, blocks, names)
    gone_nodes = {name: each for each in chosen if each.replaced is None for name in each.nodes}
    readers = _readers_again(index, chosen, blocks)
    after = [
        _with_consumers(record.with_readers(readers), gone_nodes)
        for record in _with_constants(after, index, chosen, removed)
    ]
    for other, renamed in zip(others, after, strict=True):
        declared.difference_update(renamed.value_info)
        if renamed != other:
            edit.metadata.update([renamed.to_entry()])
    gone = {name for node_index in removed for name in index.nodes[node_index].output} | names.keys() | weights
    gone -= {blocks[each.id].output for each in chosen if each.replaced} - names.keys()
    _drop(edit, VALUE_INFO, [value.name for value in graph.value_info], declared | gone.difference(names.values()))
    result = model.edited(edit)
    if others or result.digest() != chosen[0].original:  # that one is as valid as the original was
        _check(index, GraphIndex(graph_of(result, model.function)), chosen, blocks)
    return result


def _put_back(
    index: GraphIndex, chosen: Sequence[Insertion], blocks: Mapping[str, Owned], names: Mapping[str, str]
) -> dict[int, list[bytes]]:
    """What the chosen ones stand in the place of, under the present names of what it reads and gives."""
    if all(insertion.replaced is None for insertion in chosen):
        return {}
    order, returning = OriginalOrder(index), list[Returning]()
    for insertion in chosen:
        if (replaced := insertion.replaced) is None:
            continue
        block = blocks[insertion.id]
        inputs = {replaced.input: names.get(block.source, block.source)}
        outputs = {replaced.output: names.get(block.output, block.output)}
        first = min(order.place(NODE, n) for n in block.nodes)
        for at, data in replaced.contents(index.model.tensor):
            piece = fields.whole(data)
            if piece.number in (NODE, FUNCTION_NODE):
                piece = fields.replaced(piece, with_names(piece.content, inputs, outputs))
                returning.append(Returning(at, piece.data, first))
            else:
                returning.append(Returning(at, data, None, piece.number))
    gone = {insertion.id for insertion in chosen}
    staying = [each for each in index.insertions if each.id not in gone]
    return order.put_back(returning, _bounds(index, order, staying))


def _bounds(index: GraphIndex, order: OriginalOrder, staying: Iterable[Insertion]) -> Iterator[tuple[int, int]]:
    """(the last place among the fields of the original, the first in the graph) of each insertion that goes on standing
    in the place of nodes.
    """
    for insertion in staying:
        contents = insertion.replaced.contents() if insertion.replaced else []
        nodes = [at for at, data in contents if fields.whole(data).number in (NODE, FUNCTION_NODE)]
        places = [order.place(NODE, n) for name in insertion.nodes for n in index.node_names.get(name, ())]
        if nodes and places:
            yield max(nodes), min(places)


def _readers_again(
    index: GraphIndex, chosen: Sequence[Insertion], blocks: Mapping[str, Owned]
) -> dict[str, Sequence[str]]:
    """Name of a node of a block that goes -> names of the nodes that read in its place, where the block replaced some.

    Nodes that an unnamed one would be told by are known by their operators alone.
    """
    found: dict[str, Sequence[str]] = {}
    for insertion in chosen:
        if insertion.replaced:
            nodes = enumerate(insertion.replaced.graph().node)
            reading = [
                node.name or f"{node.op_type}#{n}" for n, node in nodes if insertion.replaced.input in reads(node)
            ]
            block = blocks[insertion.id]
            found |= {index.nodes[n].name: reading for n in block.nodes if block.source in index.reads(n)}
    return found


def _constants(index: GraphIndex, nodes: frozenset[int], kept: set[str]) -> set[int]:
    """The Constant nodes among some nodes whose values are needed elsewhere."""
    constant = (n for n in nodes if index.nodes[n].op_type == "Constant")
    return {n for n in constant if not kept.isdisjoint(index.nodes[n].output)}


def _check(index: GraphIndex, after: GraphIndex, chosen: Sequence[Insertion], blocks: Mapping[str, Owned]) -> None:
    """InsertionError where a removal would make a model invalid that was valid before."""
    shapes = ShapeTable(index)
    for insertion in chosen:
        check_types(shapes, insertion, blocks[insertion.id].source, blocks[insertion.id].output)
    if validity.is_in_order(after):
        return
    found = validity.fault(after)
    if found is None and validity.is_in_order(index):
        found = "its nodes would no longer be in order"
    if found is not None and validity.fault(index) is None:
        ids = ", ".join(blocks)
        raise InsertionError(f"{ids} cannot be taken out: without it, {found}; go back to the file from before")


def _declared(index: GraphIndex, insertions: Sequence[Insertion]) -> set[str]:
    """The tensors that insertions declared the shape of: of those that their records say, the ones at their nodes.

    A record can have got one that an insertion before it in a chain declared.
    """
    nodes = [n for insertion in insertions for name in insertion.nodes for n in index.node_names.get(name, ())]
    touched = {name for n in nodes for name in (*index.reads(n), *index.nodes[n].output)}
    return touched.intersection(name for insertion in insertions for name in insertion.value_info)


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


def _with_constants(
    others: Sequence[Insertion], index: GraphIndex, chosen: Sequence[Insertion], removed: frozenset[int]
) -> list[Insertion]:
    """The records of the insertions that stay, with the constants of removed ones that an optimiser made them read."""
    left = {name for each in chosen for name in each.initializers if name in index.initializers}
    nodes = {name: n for each in chosen for name in each.nodes if (n := index.node_names[name][0]) not in removed}
    result = []
    for other in others:
        found = {name for each in other.nodes for n in index.node_names.get(each, ()) for name in index.reads(n)}
        more = [name for name in sorted(left & found) if name not in other.initializers]
        made = [name for name, n in nodes.items() if found.intersection(index.nodes[n].output)]
        result.append(replace(other, initializers=(*other.initializers, *more), nodes=(*other.nodes, *made)))
    return result


def _with_consumers(record: Insertion, removed: Mapping[str, Insertion]) -> Insertion:
    """A record in which nodes that are gone, where they read the block, are replaced by what stood behind them.

    ``removed``: name of a node that is gone -> its insertion.
    """
    site = record.site
    consumers, others = (_outlasting(names, removed) for names in (site.consumers, site.others))
    return replace(record, site=replace(site, consumers=consumers, others=others))


def _outlasting(readers: tuple[str, ...], removed: Mapping[str, Insertion]) -> tuple[str, ...]:
    found, seen, pending = list[str](), set[str](), list(reversed(readers))
    while pending:
        reader = pending.pop()
        insertion = removed.get(reader)
        if insertion is None:
            found.append(reader)
        elif insertion.id not in seen:
            seen.add(insertion.id)
            pending += reversed(insertion.site.consumers)
    return tuple(found)


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


@dataclass(frozen=True)
class Unchanged:
    """Whether a model, its insertions taken out, is the model that they were put into; see :func:`unchanged`."""

    passed: bool | None
    """None: it was not decided."""
    sentence: str
    rewritten: bool = False
    """whether it is another model than was recorded, as it is after an optimiser"""


def unchanged(model: ModelFile, original: ModelFile | None = None) -> Unchanged:
    """Take every insertion out and compare with the original: byte for byte if it is given, else by the recorded
    digest.
    """
    insertions = model.insertions()
    try:
        bare = remove(model)
    except (InsertionError, ModelError) as error:
        return Unchanged(False, str(error), rewritten=original is None)
    if original is not None:
        if same_bytes(bare, original):
            return Unchanged(True, "without the insertions it is the original, byte for byte")
        return Unchanged(False, f"without the insertions it is not {original.name}")
    if insertions and bare.digest() != insertions[0].original:
        said = "without the insertions it is not the original any more: another tool, an optimiser say, changed it"
        return Unchanged(False, said, rewritten=True)
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
