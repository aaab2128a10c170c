"""Replace parts of a model by blocks: what stood there is taken out, and kept in the record of the block.

The block reads what the part read, and gives what it gave under the same name: nothing that reads it changes. Constants
of the part that the block can use stay where they are; others that nothing reads any more go into the record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import onnx

from ..blocks.nothing import NOTHING
from ..blocks.size import check_size
from ..errors import SiteError
from ..graph import module_paths
from ..graph.index import GraphIndex
from ..messages import listed
from ..modelfile import limits
from ..modelfile.fields import INITIALIZER, NODE, VALUE_INFO, Edit
from ..modelfile.function_body import graph_of
from ..modelfile.model import ModelFile
from ..modelfile.packed import pack
from ..modelfile.record import EDITION, Insertion, Replaced
from ..selection.sites import SiteFinder
from ..template.names import UniqueNames
from ..template.subgraph import Subgraph
from .block_work import BlockWork
from .lowering import lower, name_output, record_of
from .moved_weights import MovedWeights
from .original_order import OriginalOrder
from .ownership import needed
from .plan import PlannedInsertion, ids_of, named
from .splice import AppliedInsertion, SubgraphCheck, original_of

CHANNELS_LAST = "has maps that are [N, H, W, C], or may be, and blocks are written for [N, C, H, W]"
"""why nothing is put in the place of such a part, as the end of a sentence"""
_EXTERNAL = onnx.TensorProto.EXTERNAL


@dataclass(frozen=True)
class Boundary:
    """A part as it stands in a graph, with the constants that only it reads."""

    nodes: frozenset[int]
    constants: frozenset[int]
    """those of the nodes that depend on no input of the model"""
    input: str
    output: str

    @classmethod
    def of(cls, index: GraphIndex, nodes: Collection[int]) -> Boundary | str:
        """Of some nodes; where they are no part that can be replaced, the reason, as the end of a sentence."""
        own = set(nodes)
        if inside := [index.insertion_of[each].id for each in sorted(own) if each in index.insertion_of]:
            return f"has the insertion {inside[0]} in it; take that out first"
        constants = {each for each in own if each not in index.active}
        pending = [*own]
        while pending:
            for name in index.reads(pending.pop()):
                producer = index.producer.get(name)
                if producer is None or producer in own or producer in index.active:
                    continue
                if own.issuperset(n for given in index.named_outputs[producer] for n in index.consumers.get(given, ())):
                    own.add(producer)
                    constants.add(producer)
                    pending.append(producer)
        made = {name for each in own for name in index.named_outputs[each]}
        read = {name for each in own for name in index.reads(each) - made if index.is_activation(name)}
        # sizes that are computed elsewhere, from those of the model's inputs: a block computes its own
        sources = sorted(read if index.model.function else read - index.sizes)
        leaving = needed(index, frozenset(own)) & made
        outputs = [name for name in sorted(leaving) if index.producer[name] not in constants]
        if len(sources) != 1 or len(outputs) != 1:
            reads, gives = (listed([repr(name) for name in some], 4) or "nothing" for some in (sources, outputs))
            return f"reads {reads} and gives {gives}, where a block reads one tensor and gives one"
        stay = {each for each in constants if not leaving.isdisjoint(index.named_outputs[each])}
        annotated = made.intersection(each.tensor_name for each in index.model.structure.graph.quantization_annotation)
        if annotated - {outputs[0]}:
            return f"has the tensor {min(annotated)!r} in it, which the model annotates with its quantisation"
        return cls(frozenset(own - stay), frozenset(constants - stay), sources[0], outputs[0])


def replace_parts(
    finder: SiteFinder,
    model: ModelFile,
    planned: Iterable[PlannedInsertion],
    check: SubgraphCheck | None = None,
    edition: int = EDITION,
) -> tuple[ModelFile, list[AppliedInsertion]]:
    """Put blocks in the place of parts of a model.

    Parameters
    ----------
    finder:
        The model that the parts are of.
    model:
        The same model, or with blocks inserted since.
    planned:
        Blocks, each with its part.
    check:
        Called with each block's subgraph; what it returns is added to the warnings.
    edition:
        Of the forms that the blocks are written in.

    Returns
    -------
    tuple[ModelFile, list[AppliedInsertion]]
        The new model, and what was put in.

    Raises
    ------
    BlockError, SiteError, WeightsError
        If one of the blocks cannot be put in.
    """
    graphs: dict[tuple[str, ...] | None, list[PlannedInsertion]] = {}
    for each in planned:
        graphs.setdefault(each.site.function, []).append(each)
    given, macs = finder.index, finder.work.macs()
    original = original_of(given.model)
    applied: list[AppliedInsertion] = []
    for function, there in graphs.items():
        before = given if function is None else GraphIndex(graph_of(given.model, function))
        index = before if model is given.model else GraphIndex(graph_of(model, function))
        replacing = _Replacing(index, _carried_over(before, index), check, original, edition, macs)
        applied += [replacing.add(each) for each in there]
        model, applied[-len(there) :] = replacing.result()
    return model, applied


def _carried_over(before: GraphIndex, after: GraphIndex) -> list[int]:
    """Where the nodes of a graph are after insertions into it: index before -> index after."""
    earlier = {each.id for each in before.insertions}
    new = {n for n, insertion in after.insertion_of.items() if insertion.id not in earlier}
    return [n for n in range(len(after.nodes)) if n not in new]


class _Replacing:
    """Lowers blocks in the place of parts of one graph, into one edit."""

    def __init__(
        self,
        index: GraphIndex,
        positions: Sequence[int],
        check: SubgraphCheck | None,
        original: str,
        edition: int,
        macs: int | None,
    ) -> None:
        self._index = index
        self._macs = macs
        self._positions = positions
        self._check = check
        self._original = original
        self._edition = edition
        self._names = UniqueNames(set(index.names))
        self._ids = ids_of(module_paths.ModuleTree(index), index.model.whole)
        self._order = OriginalOrder(index)
        self._edit = Edit()
        self._applied: list[AppliedInsertion] = []
        self._gone: set[int] = set()
        self._readers: dict[str, Sequence[str]] = {}
        """label of a node that goes -> names of those that read in its place"""

    def add(self, planned: PlannedInsertion) -> AppliedInsertion:
        """Lower one block and add it to the edit."""
        with planned.request.concerned():
            return self._added(planned)

    def _added(self, planned: PlannedInsertion) -> AppliedInsertion:
        index, site, part = self._index, planned.site, planned.part
        assert part is not None
        if part.channels_last and planned.block.name != NOTHING:
            raise SiteError(f"{site.label} {CHANNELS_LAST}")
        if part.gives_tokens:
            raise SiteError(f"{site.label} gives [N, H * W, C] for a map [N, H, W, C], so it cannot be left out")
        planned.block.check(site.feature)
        check_size(planned.block, site.feature)
        there = Boundary.of(index, [self._positions[each] for each in part.nodes])
        if isinstance(there, str):
            raise SiteError(f"{site.label} {there}")
        if not self._gone.isdisjoint(there.nodes):
            raise SiteError(f"{site.label} shares nodes with something else that is to be replaced")
        id, scope = named(site, planned.block, self._ids)
        block = lower(planned, id, scope, there.input, index.model, self._names, self._edition)
        subgraph = block.subgraph
        checked = self._check(planned, subgraph, there.input, index.model) if self._check else None
        name_output(subgraph, there.output)
        declares = None if index.outputs.keys() & {there.output} or self._declared(there.output) else there.output
        record = record_of(planned, id, block, reads=there.input, declares=declares, original=self._original, shapes={})
        whole = replace(subgraph, nodes=deepcopy(subgraph.nodes))  # with the constants that the model has already
        names = self._reused(subgraph, there)
        replaced = self._taken_out(there, subgraph, set(names.values()), same=planned.same)
        record = replace(record.with_constants(names), replaced=replaced)
        self._add(subgraph, record, there)
        given = (*site.warnings, *planned.warnings, *planned.block.warnings(block.feature), *subgraph.warnings)
        warnings = (*given, *([checked] if checked else ()))
        work = BlockWork(index.model).counter(whole, there.input, site.feature)
        applied = AppliedInsertion(record, site, part.input, warnings, planned.source, self._macs, work)
        self._applied.append(applied)
        return applied

    def _declared(self, tensor: str) -> bool:
        return any(each.name == tensor for each in self._index.model.structure.graph.value_info)

    def _reused(self, subgraph: Subgraph, there: Boundary) -> dict[str, str]:
        """Let the block read the constants of the part that it would write itself, each in one place; their names by
        those that the block gave them.
        """
        index, names = self._index, dict[str, str]()
        initializers = index.model.structure.graph.initializer
        read = {name for each in there.nodes for name in index.reads(each) if name in index.initializers}
        free = {each.name: each for each in initializers if each.name in read}
        for tensor in subgraph.initializers:
            alike = (name for name, each in free.items() if _same_kind(each, tensor))
            found = next((name for name in alike if _same_value(index.model, name, tensor)), None)
            if found is not None:
                names[tensor.name] = found
                del free[found]
        subgraph.initializers = [tensor for tensor in subgraph.initializers if tensor.name not in names]
        for node in subgraph.nodes:
            node.input[:] = [names.get(name, name) for name in node.input]
        return names

    def _taken_out(self, there: Boundary, subgraph: Subgraph, reused: Set[str], *, same: bool) -> Replaced:
        """Take out a part: its nodes, the constants that nobody else reads, and the declared shapes of both."""
        index, graph = self._index, self._index.model.structure.graph
        fields = [(NODE, each) for each in there.nodes]
        left: list[str] = []
        large = {each for each in there.constants if self._size(NODE, each) > limits.KEPT_CONSTANT_BYTES}
        fields = [each for each in fields if each[1] not in large]
        kept = needed(index, there.nodes) | reused
        read = {name for each in there.nodes for name in index.reads(each)}
        moved = MovedWeights(index.model, subgraph.initializers)
        for position, tensor in enumerate(graph.initializer):
            if tensor.name not in read:
                continue
            if tensor.name in kept:
                if (
                    tensor.name not in reused
                    and tensor.name in index.inputs
                    and there.nodes.issuperset(index.consumers[tensor.name])
                ):
                    left.append(tensor.name)
            elif tensor.data_location == _EXTERNAL:
                left.append(tensor.name)
            elif moved.take(tensor, position) or self._size(INITIALIZER, position) <= limits.KEPT_CONSTANT_BYTES:
                fields.append((INITIALIZER, position))
            else:
                left.append(tensor.name)
        left += [name for each in sorted(large) for name in index.named_outputs[each]]
        names = {name for each in there.nodes - large for name in index.named_outputs[each]} - {there.output}
        names |= {graph.initializer[position].name for number, position in fields if number == INITIALIZER}
        fields += [(VALUE_INFO, position) for position, each in enumerate(graph.value_info) if each.name in names]
        at, contents = self._order.taken_out(fields)
        data = b"".join(moved.cut.get(each, each) for each in contents)
        if len(data) > limits.REPLACED_BYTES:
            raise SiteError(f"what stands at {there.output!r} is too large to be kept in a record: {len(data):,} bytes")
        for number, position in fields:
            self._edit.drop(number, position)
        return Replaced(
            input=there.input,
            output=there.output,
            nodes=len(there.nodes - there.constants),
            same=same,
            fields=pack(data),
            at=at,
            reused=tuple(sorted(reused)),
            left=tuple(left),
            moved=dict(moved.names),
            turned=tuple(moved.turned),
        )

    def _size(self, number: int, position: int) -> int:
        piece = self._index.model.pieces(number)[position]
        return piece.end - piece.start

    def _add(self, subgraph: Subgraph, record: Insertion, there: Boundary) -> None:
        """Add nodes, constants and the declared shape to the edit: in the place of the node that gave the output."""
        index = self._index
        at = index.producer[there.output]
        for node in subgraph.nodes:
            module_paths.describe(node, record.id, like=index.nodes[at])
        self._edit.nodes.setdefault(at, []).extend(n.SerializeToString(deterministic=True) for n in subgraph.nodes)
        for name in record.value_info:
            value = onnx.helper.make_tensor_value_info(name, record.feature.onnx_type, list(record.site.shape))
            self._edit.append(VALUE_INFO, value)
        for tensor in subgraph.initializers:
            self._edit.append(INITIALIZER, tensor)
        self._gone |= there.nodes
        reading = [node.name for node in subgraph.nodes if there.input in node.input]
        self._readers |= {index.label(each): reading for each in there.nodes if there.input in index.reads(each)}

    def result(self) -> tuple[ModelFile, list[AppliedInsertion]]:
        """The model with every block in it, and what was put in."""
        for earlier in self._index.insertions:
            if (record := earlier.with_readers(self._readers)) != earlier:
                self._edit.metadata.update([record.to_entry()])
        done = [replace(each, insertion=each.insertion.with_readers(self._readers)) for each in self._applied]
        self._edit.metadata.update(each.insertion.to_entry() for each in done)
        return self._index.model.edited(self._edit), done


def _same_kind(a: onnx.TensorProto, b: onnx.TensorProto) -> bool:
    return bool(a.data_type == b.data_type and a.dims == b.dims)


def _same_value(model: ModelFile, name: str, tensor: onnx.TensorProto) -> bool:
    """Whether an initializer holds the same bits."""
    return bool(model.tensor(name).tobytes() == np.ascontiguousarray(onnx.numpy_helper.to_array(tensor)).tobytes())
