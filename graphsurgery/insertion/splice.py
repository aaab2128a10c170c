"""Insert blocks: lower each step of a plan and carry all of them out as one edit of the model file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import onnx

from ..feature_map import FeatureMap
from ..graph import module_paths
from ..graph.work import Work
from ..modelfile.fields import INITIALIZER, VALUE_INFO, Edit
from ..modelfile.function_body import graph_of
from ..modelfile.model import ModelFile
from ..modelfile.record import EDITION, Insertion
from ..request import Shapes
from ..selection.branches import NodeConsumer
from ..selection.sites import Site, SiteFinder
from ..template.subgraph import Subgraph
from . import qdq
from .block_work import BlockWork
from .cost import cost_warning
from .lowering import lower, name_output, record_of
from .plan import Plan, PlannedInsertion, Step
from .rewiring import rename_tensors


@dataclass(frozen=True)
class AppliedInsertion:
    """One insertion that was made: its record, and what the user should know of it."""

    insertion: Insertion
    site: Site
    tensor: str
    """what the block reads, as the given model calls it; of a block behind another one, that one's output"""
    warnings: tuple[str, ...]
    source: str
    """FILE[:PREFIX] of the weights of a file; "" without one"""
    model_macs: int | None
    """multiply-accumulates of the model before, by the shapes that were known of it anyway"""
    find_work: Callable[[], Work] = field(compare=False, repr=False)
    """counts the work of the block: few callers need it"""

    @cached_property
    def work(self) -> Work:
        """What the block takes alone, on one image where the model leaves the batch open."""
        return self.find_work()


SubgraphCheck = Callable[[PlannedInsertion, Subgraph, str, ModelFile], str | None]
"""Gives a warning, or None, about the subgraph of a block that reads a tensor of this name in a model: so what lies
above the engine can look at every block that is written."""


def insert(
    finder: SiteFinder,
    insertions: Iterable[PlannedInsertion],
    check: SubgraphCheck | None = None,
    edition: int = EDITION,
) -> tuple[ModelFile, list[AppliedInsertion]]:
    """Insert blocks into a model.

    Parameters
    ----------
    finder:
        The model, indexed; it stays as it is.
    insertions:
        What to insert, in any order (see :func:`graphsurgery.insertion.plan.ordered`).
    check:
        Called with each block's subgraph; what it returns is added to the warnings.
    edition:
        Of the forms that the blocks are written in.

    Returns
    -------
    tuple[ModelFile, list[AppliedInsertion]]
        The new model, and what was inserted, in the order in which it was.

    Raises
    ------
    BlockError, SiteError, WeightsError
        If one of the insertions cannot be made.
    """
    graphs: dict[tuple[str, ...] | None, list[PlannedInsertion]] = {}
    for insertion in insertions:
        graphs.setdefault(insertion.site.function, []).append(insertion)
    applied: list[AppliedInsertion] = []
    macs = finder.work.macs()
    model, original = finder.model, original_of(finder.model)
    for function, planned in graphs.items():
        there = finder
        if model is not finder.model or function is not None:
            there = SiteFinder(graph_of(model, function), finder.shapes.given if function is None else {})
        splice = _Splice(there, Plan(there, planned), check, original, finder.shapes.given, edition, macs)
        done = [splice.insert(step) for step in splice.plan.steps]
        model = splice.result([each.insertion for each in done])
        applied += done
    return model, applied


def original_of(model: ModelFile) -> str:
    """The digest of a model before its first insertion."""
    earlier = model.insertions()
    return earlier[0].original if earlier else model.digest()


class _Splice:
    """Lowers the steps of a plan, one after the other, into one edit."""

    def __init__(
        self,
        finder: SiteFinder,
        plan: Plan,
        check: SubgraphCheck | None,
        original: str,
        shapes: Shapes,
        edition: int,
        macs: int | None,
    ) -> None:
        self.plan = plan
        self._macs = macs
        self._check = check
        self._edition = edition
        self._model = finder.model
        self._work = BlockWork(finder.model)
        self._index = finder.index
        self._shapes = dict(shapes)
        self._original = original
        self._edit = Edit()
        self._outputs: list[str] = []
        """of each step so far, the name of its output"""

    def insert(self, step: Step) -> AppliedInsertion:
        """Lower one step and add it to the edit."""
        with step.insertion.request.concerned():
            return self._insert(step)

    def _insert(self, step: Step) -> AppliedInsertion:
        planned, site = step.insertion, step.insertion.site
        source = self._produced(site.tensor, step.previous)
        block = lower(planned, step.id, step.scope, source, self._model, self.plan.names, self._edition)
        subgraph = block.subgraph
        warnings = self._warnings(planned, subgraph, source, block.feature)
        pair = None
        if planned.pair and block.constants:
            pair = qdq.append(subgraph, planned.pair, block.constants, site.feature, self.plan.names, step.scope)
        if step.output:
            name_output(subgraph, step.output)
        self._outputs.append(subgraph.output)
        declared = source if site.graph_output else subgraph.output
        record = record_of(
            planned,
            step.id,
            block,
            reads=source,
            declares=declared,
            original=self._original,
            shapes=self._shapes,
            pair=pair,
        )
        self._add(site, record, subgraph)
        reads = site.tensor if step.previous is None else source
        work = self._work.counter(subgraph, source, site.feature)
        return AppliedInsertion(record, site, reads, warnings, planned.source, self._macs, work)

    def _produced(self, tensor: str, step: int | None) -> str:
        """The output of a step; None: the tensor of the site itself, by the name that it has in the end."""
        return self.plan.moved.get(tensor, tensor) if step is None else self._outputs[step]

    def _warnings(
        self, planned: PlannedInsertion, subgraph: Subgraph, source: str, feature: FeatureMap
    ) -> tuple[str, ...]:
        """What the user should know of an insertion; ``feature``: the site as the block was computed for it."""
        site, block = planned.site, planned.block
        if planned.pair:
            quantised = qdq.clipping(planned.pair, qdq.attenuates(subgraph, source))
        else:
            quantised = qdq.becoming_float(self._index, site.tensor, site.consumers)
        checked = self._check(planned, subgraph, source, self._model) if self._check else None
        cost = cost_warning(block, feature, site.stride)
        given = (*site.warnings, *planned.warnings, *block.warnings(feature), *subgraph.warnings)
        return (*given, *(warning for warning in (cost, quantised, checked) if warning))

    def _add(self, site: Site, record: Insertion, subgraph: Subgraph) -> None:
        """Add nodes, initializers and declared shapes to the edit; the nodes right after the producer of the site."""
        producer = self._index.producer.get(site.tensor)
        neighbour = None if producer is None else self._index.nodes[producer]
        for node in subgraph.nodes:
            module_paths.describe(node, record.id, like=neighbour)
        at = 0 if producer is None else producer + 1
        self._edit.nodes.setdefault(at, []).extend(n.SerializeToString(deterministic=True) for n in subgraph.nodes)
        for name in record.value_info:
            value = onnx.helper.make_tensor_value_info(name, site.feature.onnx_type, list(site.shape))
            self._edit.append(VALUE_INFO, value)
        for tensor in subgraph.initializers:
            self._edit.append(INITIALIZER, tensor)

    def result(self, records: Iterable[Insertion]) -> ModelFile:
        """The model with every step in it, consumers rewired."""
        inputs: dict[int, dict[str, str]] = {}
        entering: dict[tuple[str, str], str] = {}
        for tensor in dict.fromkeys(tensor for tensor, _ in self.plan.last):
            for node_index in self._index.consumers.get(tensor, ()):
                name = self._produced(tensor, self.plan.last.get((tensor, NodeConsumer(node_index))))
                if name != tensor:
                    inputs.setdefault(node_index, {})[tensor] = name
                    entering[self.plan.owners.get(node_index, ""), tensor] = name
        rename_tensors(self._edit, self._index, inputs, self.plan.moved)
        for earlier in self.plan.earlier:  # what an earlier block reads or gives may have another name now
            site = {earlier.site.tensor: entering.get((earlier.id, earlier.site.tensor), earlier.site.tensor)}
            renamed = earlier.renamed(site=site, output=self.plan.moved)
            if renamed != earlier:
                self._edit.metadata.update([renamed.to_entry()])
        self._edit.metadata.update(record.to_entry() for record in records)
        return self._model.edited(self._edit)
