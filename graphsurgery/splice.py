"""Insert and remove: the only place where a model's graph is changed.

Insertions are planned against one index of the model and carried out as one edit, however many there are. A removal
looks at the graph, not at old bytes: it finds the block's nodes by name, joins what they stood between, and takes
the record away.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from . import folding, gate, modulepath
from .block import Array, Block
from .bytesource import Source
from .errors import BlockError, InsertionError, ModelError, SiteError
from .graphindex import GraphIndex
from .modelfile import INITIALIZER, NODE, VALUE_INFO, Edit, ModelFile
from .record import KEY, Insertion, RecordedSite
from .sites import Site, SiteFinder
from .template import TARGETS, Emitted, Names, Template
from .wire import rename_inputs, rename_outputs


@dataclass(frozen=True)
class Planned:
    """One insertion that is asked for: a block and its weights, at a site."""

    block: Block
    site: Site
    weights: Callable[[np.random.Generator], Mapping[str, Array]]
    """makes the weights; the generator it is given is the insertion's own"""
    seed: int = 0
    init: str = "default"
    gate: str = "none"
    target: str = "tensorrt"
    lowering: str | None = None


@dataclass(frozen=True)
class Done:
    """One insertion that was made: its record, and what the user should know of it."""

    insertion: Insertion
    site: Site
    warnings: tuple[str, ...]


# ---------------------------------------------------------------------- insert


class Splicer:
    """Carries out insertions on one model. Blocks at the same site are chained in the order in which they are given."""

    def __init__(self, finder: SiteFinder) -> None:
        self._finder = finder
        self._model = finder.model
        self._index = finder.index
        self._ir_version = int(self._model.structure.ir_version)
        self._names = Names(set(self._index.names))
        self._earlier = self._model.insertions()
        self._ids = Names({*finder.tree.modules, *(insertion.id for insertion in self._earlier)})
        self._original = self._earlier[0].original if self._earlier else self._model.digest()
        self._owners = {
            position: earlier.id
            for earlier in self._earlier
            for name in earlier.nodes
            for position in self._index.node_names.get(name, ())
        }
        """position of a node of an earlier insertion -> its id"""
        self._edit = Edit()
        self._latest: dict[str, str] = {}
        """tensor of a site -> the tensor that its readers see after the insertions so far"""
        self._moved: dict[str, str] = {}
        """tensor of a site that is a graph output -> the new name under which its producer makes it"""
        self.done: list[Done] = []

    def insert(self, planned: Planned) -> None:
        """Plan one insertion. BlockError, SiteError or WeightsError if it cannot be made."""
        site, block, feature = planned.site, planned.block, planned.site.feature
        block.check(feature)
        self._check_free(site)
        scope, name = self._scope(site, block)
        weights = planned.weights(np.random.default_rng([planned.seed, zlib.crc32(name.encode())]))
        source = self._source(site)
        template = Template(
            feature,
            opset=self._model.opset,
            scope=scope,
            weight_scope=name,
            target=planned.target,
            weights=weights,
            x=source,
            names=self._names,
        )
        lowering = _lowering(block, template, planned.lowering)
        output = block.emit(template, lowering)
        if planned.gate == "residual":
            output = gate.residual(template, output)
        emitted = template.export(output, ir_version=self._ir_version)
        final = self._name_output(site, emitted)
        insertion = Insertion(
            id=name,
            module=block.spelled,
            settings=dict(block.values),
            gate=planned.gate,
            init=planned.init,
            target=planned.target,
            lowering=lowering,
            site=_recorded(site, source),
            output_tensor=final,
            nodes=tuple(node.name for node in emitted.nodes),
            initializers=tuple(tensor.name for tensor in emitted.initializers),
            value_info=tuple(self._declare(site, source, final)),
            parameters=sum(int(np.size(values)) for values in weights.values()),
            stored={key: emitted.stored.get(key) or folding.keep(np.asarray(v)) for key, v in weights.items()},
            original=self._original,
        )
        self._place(site, insertion, emitted)
        self.done.append(Done(insertion, site, (*site.warnings, *block.warnings(feature), *emitted.warnings)))

    def _check_free(self, site: Site) -> None:
        if site.graph_output and site.tensor in self._index.inputs:
            raise SiteError(
                f"{site.tensor!r} is an input and an output of the model at once; there is no node to insert behind"
            )
        position, readers = self._index.producer.get(site.tensor), self._index.consumers.get(site.tensor, ())
        owner = self._owners.get(position) if position is not None else None
        if owner and readers and not site.graph_output and all(self._owners.get(r) == owner for r in readers):
            raise SiteError(
                f"{site.tensor!r} is inside the insertion {owner}; a block goes in front of it or behind it"
            )

    def result(self) -> ModelFile:
        """The model with every planned insertion in it."""
        edit, rewired = self._edit, dict[int, dict[bytes, bytes]]()
        for tensor, latest in self._latest.items():
            if tensor not in self._moved:
                for position in self._index.consumers.get(tensor, ()):
                    rewired.setdefault(position, {})[tensor.encode()] = latest.encode()
        for position, names in rewired.items():
            edit.replaced[NODE, position] = rename_inputs(self._model.content(NODE, position), names)
        for tensor, moved in self._moved.items():
            position = self._index.producer[tensor]
            node = edit.replaced.get((NODE, position)) or self._model.content(NODE, position)
            edit.replaced[NODE, position] = rename_outputs(node, {tensor.encode(): moved.encode()})
        edit.metadata = dict(record.to_entry() for record in self._earlier_renamed())
        edit.metadata |= dict(done.insertion.to_entry() for done in self.done)
        return self._model.edited(edit)

    def _earlier_renamed(self) -> Iterator[Insertion]:
        """Records of earlier insertions next to which something was put now."""
        inner = {tensor: latest for tensor, latest in self._latest.items() if tensor not in self._moved}
        for earlier in self._earlier:
            renamed = earlier.renamed(site=inner, output=self._moved)
            if renamed != earlier:
                yield renamed

    def _scope(self, site: Site, block: Block) -> tuple[str, str]:
        """How the new module is called among the nodes (/model.8/simam) and, free in this model, as an id
        (model.8.simam).
        """
        path = (site.path or "").strip("/")
        name = self._ids.reserve(".".join(part for part in (modulepath.join(path.split("/")), block.name) if part))
        return "/" + "/".join(part for part in (path, name.rpartition(".")[2]) if part), name

    def _source(self, site: Site) -> str:
        """The tensor that the next block at this site reads."""
        if not site.graph_output:
            return self._latest.get(site.tensor, site.tensor)
        if site.tensor not in self._moved:
            self._moved[site.tensor] = self._names.reserve(f"{site.tensor}_before")
            return self._moved[site.tensor]
        # the block before this one gave the output its name; hand the name on
        before = max(i for i, done in enumerate(self.done) if done.site.tensor == site.tensor)
        passed = self._names.reserve(f"{site.tensor}_before")
        nodes, names = self._edit.nodes[self._position(site)], {site.tensor.encode(): passed.encode()}
        self._edit.nodes[self._position(site)] = [rename_outputs(node, names) for node in nodes]
        insertion = self.done[before].insertion.renamed(output={site.tensor: passed})
        self.done[before] = replace(self.done[before], insertion=insertion)
        return passed

    def _name_output(self, site: Site, emitted: Emitted) -> str:
        """Give the block's output its final name: the site's own where that is an output of the model."""
        if not site.graph_output:
            self._latest[site.tensor] = emitted.output
            return emitted.output
        for node in emitted.nodes:
            for i, name in enumerate(node.output):
                if name == emitted.output:
                    node.output[i] = site.tensor
        self._latest[site.tensor] = site.tensor
        return site.tensor

    def _declare(self, site: Site, source: str, output: str) -> list[str]:
        """Declare the shapes of the tensors that the insertion adds around the block; returns their names."""
        new = [name for name in (source, output) if name not in self._index.producer and name not in self._index.inputs]
        known = {n for done in self.done for n in done.insertion.value_info}
        new = [name for name in new if name not in self._index.outputs and name not in known]
        values = [onnx.helper.make_tensor_value_info(name, site.feature.onnx_type, list(site.shape)) for name in new]
        self._edit.appended.setdefault(VALUE_INFO, []).extend(value.SerializeToString() for value in values)
        return new

    def _position(self, site: Site) -> int:
        """Where nodes that read the site's tensor may stand: right behind the node that makes it."""
        return self._index.producer.get(site.tensor, -1) + 1

    def _place(self, site: Site, insertion: Insertion, emitted: Emitted) -> None:
        for node in emitted.nodes:
            modulepath.describe(node, insertion.id, like=self._neighbour(site))
        nodes = [node.SerializeToString(deterministic=True) for node in emitted.nodes]
        self._edit.nodes.setdefault(self._position(site), []).extend(nodes)
        tensors = [tensor.SerializeToString() for tensor in emitted.initializers]
        self._edit.appended.setdefault(INITIALIZER, []).extend(tensors)

    def _neighbour(self, site: Site) -> onnx.NodeProto | None:
        position = self._index.producer.get(site.tensor)
        return None if position is None else self._index.nodes[position]


def _lowering(block: Block, t: Template, wanted: str | None) -> str:
    if t.target not in TARGETS:
        raise BlockError(f"there is no target {t.target!r}; the targets are {', '.join(TARGETS)}")
    known = block.lowerings(t.feature, t.opset)
    if wanted is None:
        return block.choose(t, known)
    if wanted not in known:
        raise BlockError(f"{block.spelled} has no lowering {wanted!r} at {t.feature.label}; it has {', '.join(known)}")
    return wanted


def _recorded(site: Site, source: str) -> RecordedSite:
    return RecordedSite(site.path, site.type, source, site.shape, site.dtype, site.stride, site.consumers)


# ---------------------------------------------------------------------- remove


def remove(model: ModelFile, ids: Sequence[str] | None = None) -> ModelFile:
    """The model without these insertions (all of them, if None). InsertionError if one is not there or was altered."""
    insertions = {insertion.id: insertion for insertion in model.insertions()}
    for name in ids or ():
        if name not in insertions:
            known = f"it has {', '.join(insertions)}" if insertions else "it has none at all"
            raise InsertionError(f"the model has no insertion {name!r}; {known}")
    chosen = [insertions[name] for name in dict.fromkeys(ids)] if ids is not None else list(insertions.values())
    return _without(model, chosen, list(insertions.values())) if chosen else model


def _without(model: ModelFile, chosen: Sequence[Insertion], every: Sequence[Insertion]) -> ModelFile:
    index, graph = GraphIndex(model), model.structure.graph
    removed: set[int] = set()
    joined: dict[str, str] = {}  # what a removed block gave -> what it read
    for insertion in chosen:
        mine = _positions(index, insertion)
        source, output = _boundary(index, mine, insertion)
        joined[output] = source
        removed |= mine
    edit = Edit()
    names = _names_after(index, joined)
    for old in names:
        for position in index.consumers.get(old, ()):
            if position not in removed:
                edit.replaced[NODE, position] = rename_inputs(model.content(NODE, position), _encoded(names))
    for old in names.keys() - joined.keys():  # a graph output gets its name back from the node that makes it
        position = index.producer[old]
        node = edit.replaced.get((NODE, position)) or model.content(NODE, position)
        edit.replaced[NODE, position] = rename_outputs(node, _encoded(names))
    edit.replaced |= {(NODE, position): None for position in removed}
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

    Whoever read a block's output reads what the block read; but a name that is an output of the model stays, and what
    the block read takes it over.
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


def _encoded(changes: Mapping[str, str]) -> dict[bytes, bytes]:
    return {old.encode(): new.encode() for old, new in changes.items()}


def _drop(edit: Edit, number: int, names: Sequence[str], unwanted: set[str]) -> None:
    edit.replaced |= {(number, position): None for position, name in enumerate(names) if name in unwanted}


def _positions(index: GraphIndex, insertion: Insertion) -> set[int]:
    found = [index.node_names.get(name, []) for name in insertion.nodes]
    if any(len(positions) != 1 for positions in found):
        raise InsertionError(
            f"{insertion.id} cannot be taken out: another tool has changed its nodes since it was inserted; "
            "go back to the file from before"
        )
    return {positions[0] for positions in found}


def _boundary(index: GraphIndex, mine: set[int], insertion: Insertion) -> tuple[str, str]:
    """The tensor that the block reads and the one that it gives, as the graph is now."""
    made = {name for position in mine for name in index.nodes[position].output}
    read = {name for position in mine for name in index.nodes[position].input if name}
    sources = [name for name in read - made if not index.is_constant(name)]
    outputs = [
        name
        for name in made
        if name in index.outputs or any(reader not in mine for reader in index.consumers.get(name, ()))
    ]
    if not outputs:  # a block that nothing reads: its last tensor
        outputs = [name for name in made if name not in index.consumers]
    if len(sources) != 1 or len(outputs) != 1:
        raise InsertionError(
            f"{insertion.id} cannot be taken out: another tool has joined it with the graph around it; "
            "go back to the file from before"
        )
    return sources[0], outputs[0]


# ---------------------------------------------------------------------- proof


@dataclass(frozen=True)
class Unchanged:
    """Whether a model, its insertions taken out, is the model that they were put into."""

    passed: bool
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
    if first.size != second.size:
        return False
    left, right = list(first.ranges()), list(second.ranges())
    if [(id(s), a, b) for s, a, b in left] == [(id(s), a, b) for s, a, b in right]:
        return True
    return all(a == b for a, b in zip(_chunks(left), _chunks(right), strict=True))


def _chunks(ranges: Iterable[tuple[Source, int, int]], size: int = 1 << 20) -> Iterator[bytes]:
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
