"""Insert: with removal.py the only place where a model's graph is changed.

Insertions are planned against one index of the model and carried out as one edit, however many there are.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from ..blocks.block import Array, Block
from ..errors import BlockError, SiteError
from ..feature_map import FeatureMap
from ..graph import module_paths
from ..modelfile.fields import INITIALIZER, NODE, VALUE_INFO, Edit
from ..modelfile.model import ModelFile
from ..modelfile.record import Insertion, RecordedSite
from ..modelfile.wire import rename_inputs, rename_outputs
from ..selection.branches import Reader
from ..selection.sites import Site, SiteFinder
from ..template import residual_gate, weight_folding
from ..template.names import UniqueNames
from ..template.subgraph import Subgraph
from ..template.template import Template
from . import qdq


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
    warnings: tuple[str, ...] = ()
    """what the user should know of how the block was made"""
    precision: str = "safe"
    pair: qdq.Pair | None = None
    """the QuantizeLinear and DequantizeLinear to put behind the block"""


@dataclass(frozen=True)
class Done:
    """One insertion that was made: its record, and what the user should know of it."""

    insertion: Insertion
    site: Site
    warnings: tuple[str, ...]


Inspection = Callable[[Planned, Subgraph, str, ModelFile], str | None]
"""What somebody above the engine has to say of a block as it was written behind a tensor of a model, if anything."""


def ordered(plans: Iterable[Planned]) -> list[Planned]:
    """The plans in an order in which they can be carried out.

    Of blocks at one tensor, one for more of its readers comes first, and so stands nearer to the tensor; those for the
    same readers stay in the order in which they are given.
    """
    plans = list(plans)
    at: dict[str, list[int]] = {}
    for place, planned in enumerate(plans):
        at.setdefault(planned.site.tensor, []).append(place)
    result = list(plans)
    for places in at.values():
        wide_first = sorted((plans[place] for place in places), key=_width)
        for place, planned in zip(places, wide_first, strict=True):
            result[place] = planned
    return result


def _width(planned: Planned) -> tuple[bool, int]:
    """Those that are to become an output of the model come before all others, because they pass its name on."""
    return not planned.site.graph_output, -len(planned.site.readers)


class Splicer:
    """Carries out insertions on one model.

    Blocks for the same readers of a tensor are chained in the order in which they are given; blocks for some of its
    readers stand behind those for more of them, which have to be given first (see ``ordered``).
    """

    def __init__(self, finder: SiteFinder, inspect: Inspection | None = None) -> None:
        self._finder = finder
        self._inspect = inspect
        self._model = finder.model
        self._index = finder.index
        self._ir_version = int(self._model.structure.ir_version)
        self._names = UniqueNames(set(self._index.names))
        self._earlier = self._model.insertions()
        self._ids = UniqueNames({*finder.tree.modules, *(insertion.id for insertion in self._earlier)})
        self._original = self._earlier[0].original if self._earlier else self._model.digest()
        self._owners = {
            position: earlier.id
            for earlier in self._earlier
            for name in earlier.nodes
            for position in self._index.node_names.get(name, ())
        }
        """position of a node of an earlier insertion -> its id"""
        self._edit = Edit()
        self._seen: dict[tuple[str, Reader], str] = {}
        """tensor of a site and one who reads it -> the tensor that the reader sees after the insertions so far"""
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
            precision=planned.precision,
            weights=weights,
            x=source,
            names=self._names,
        )
        lowering = _lowering(block, template, planned.lowering)
        output = block.emit(template, lowering)
        if planned.gate == "residual":
            output = residual_gate.residual(template, output)
        given = qdq.constants(template, planned.pair) if planned.pair else None
        emitted = template.export(output, ir_version=self._ir_version)
        told = self._told(planned, emitted, source, template.feature)
        pair = None
        if planned.pair and given:
            pair = qdq.append(emitted, planned.pair, given, feature, self._names, scope)
        final = self._name_output(site, emitted)
        insertion = Insertion(
            id=name,
            module=block.spelled,
            settings=dict(block.values),
            gate=planned.gate,
            init=planned.init,
            target=planned.target,
            precision=planned.precision,
            lowering=lowering,
            site=_recorded(site, source),
            output_tensor=final,
            nodes=tuple(node.name for node in emitted.nodes),
            initializers=tuple(tensor.name for tensor in emitted.initializers),
            value_info=tuple(self._declare(site, source, final)),
            parameters=sum(int(np.size(values)) for values in weights.values()),
            stored={key: emitted.stored.get(key) or weight_folding.keep(np.asarray(v)) for key, v in weights.items()},
            original=self._original,
            qdq=pair,
        )
        self._place(site, insertion, emitted)
        self.done.append(Done(insertion, site, told))

    def _told(self, planned: Planned, emitted: Subgraph, source: str, feature: FeatureMap) -> tuple[str, ...]:
        """What the user should know of an insertion; ``feature``: the site as the block was computed for it."""
        site, block = planned.site, planned.block
        if planned.pair:
            readers = qdq.clipping(planned.pair, qdq.attenuates(emitted, source))
        else:
            readers = qdq.becoming_float(self._index, site.tensor, site.consumers)
        told = (*site.warnings, *planned.warnings, *block.warnings(feature), *emitted.warnings)
        inspected = self._inspect(planned, emitted, source, self._model) if self._inspect else None
        return (*told, *(warning for warning in (readers, inspected) if warning))

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
        torn = {self._owners[r] for r in site.readers if r in self._owners} & {
            self._owners[r] for r in readers if r in self._owners and r not in site.readers
        }
        if torn:
            raise SiteError(
                f"some of the nodes that read {site.tensor!r} are a part of the insertion {min(torn)}; "
                "a block goes in front of the whole insertion or behind it"
            )

    def result(self) -> ModelFile:
        """The model with every planned insertion in it."""
        edit, rewired = self._edit, dict[int, dict[bytes, bytes]]()
        for tensor in dict.fromkeys(tensor for tensor, _ in self._seen):
            for position in self._index.consumers.get(tensor, ()):
                if (name := self._sees(tensor, position)) != tensor:
                    rewired.setdefault(position, {})[tensor.encode()] = name.encode()
        for position, names in rewired.items():
            edit.replaced[NODE, position] = rename_inputs(self._model.content(NODE, position), names)
        for tensor, moved in self._moved.items():
            position = self._index.producer[tensor]
            node = edit.replaced.get((NODE, position)) or self._model.content(NODE, position)
            edit.replaced[NODE, position] = rename_outputs(node, {tensor.encode(): moved.encode()})
        edit.metadata = dict(record.to_entry() for record in self._earlier_renamed())
        edit.metadata |= dict(done.insertion.to_entry() for done in self.done)
        return self._model.edited(edit)

    def _sees(self, tensor: str, reader: Reader) -> str:
        """What stands for a tensor of the model now, for one who reads it."""
        return self._seen.get((tensor, reader)) or self._moved.get(tensor, tensor)

    def _earlier_renamed(self) -> Iterator[Insertion]:
        """Records of earlier insertions next to which something was put now."""
        entering = {
            (self._owners[position], tensor): self._sees(tensor, position)
            for tensor in dict.fromkeys(tensor for tensor, _ in self._seen)
            for position in self._index.consumers.get(tensor, ())
            if position in self._owners
        }
        for earlier in self._earlier:
            tensor = earlier.site.tensor
            site = {tensor: entering.get((earlier.id, tensor), tensor)}
            renamed = earlier.renamed(site=site, output=self._moved)
            if renamed != earlier:
                yield renamed

    def _scope(self, site: Site, block: Block) -> tuple[str, str]:
        """How the new module is called among the nodes (/model.8/simam) and, free in this model, as an id
        (model.8.simam).
        """
        path = (site.path or "").strip("/")
        name = self._ids.reserve(".".join(part for part in (module_paths.join(path.split("/")), block.name) if part))
        return "/" + "/".join(part for part in (path, name.rpartition(".")[2]) if part), name

    def _source(self, site: Site) -> str:
        """The tensor that the next block at this site reads."""
        seen = {self._sees(site.tensor, reader) for reader in _readers(site)}
        if len(seen) > 1:
            raise SiteError(
                f"two insertions at {site.tensor!r} have some of their consumers in common and some not; a block can "
                "only stand in front of all consumers of another one, or behind it in front of some of them"
            )
        return self._passed_on(site) if site.graph_output else seen.pop()

    def _passed_on(self, site: Site) -> str:
        """The tensor that the next block reads which gives an output of the model: under a new name, for the block gets
        the name of the output.
        """
        passed = self._names.reserve(f"{site.tensor}_before")
        if site.tensor not in self._moved:
            self._moved[site.tensor] = passed
            return passed
        # the block before this one gave the output its name; hand the name on
        before = max(i for i, done in enumerate(self.done) if done.site.tensor == site.tensor)
        nodes, names = self._edit.nodes[self._position(site)], {site.tensor.encode(): passed.encode()}
        self._edit.nodes[self._position(site)] = [rename_outputs(node, names) for node in nodes]
        insertion = self.done[before].insertion.renamed(output={site.tensor: passed})
        self.done[before] = replace(self.done[before], insertion=insertion)
        for reader in self.done[before].site.readers:
            self._seen[site.tensor, reader] = passed
        return passed

    def _name_output(self, site: Site, emitted: Subgraph) -> str:
        """Give the block's output its final name: the site's own where that is an output of the model."""
        final = site.tensor if site.graph_output else emitted.output
        for node in emitted.nodes if site.graph_output else ():
            for i, name in enumerate(node.output):
                if name == emitted.output:
                    node.output[i] = final
        for reader in _readers(site):
            self._seen[site.tensor, reader] = final
        return final

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

    def _place(self, site: Site, insertion: Insertion, emitted: Subgraph) -> None:
        for node in emitted.nodes:
            module_paths.describe(node, insertion.id, like=self._neighbour(site))
        nodes = [node.SerializeToString(deterministic=True) for node in emitted.nodes]
        self._edit.nodes.setdefault(self._position(site), []).extend(nodes)
        tensors = [tensor.SerializeToString() for tensor in emitted.initializers]
        self._edit.appended.setdefault(INITIALIZER, []).extend(tensors)

    def _neighbour(self, site: Site) -> onnx.NodeProto | None:
        position = self._index.producer.get(site.tensor)
        return None if position is None else self._index.nodes[position]


def spliced(
    finder: SiteFinder, plans: Iterable[Planned], inspect: Inspection | None = None
) -> tuple[ModelFile, list[Done]]:
    """The model with all these insertions, and what was done, in the order in which it was (see ``ordered``)."""
    splicer = Splicer(finder, inspect)
    for planned in ordered(plans):
        splicer.insert(planned)
    return splicer.result(), splicer.done


def _lowering(block: Block, t: Template, wanted: str | None) -> str:
    known = block.lowerings(t.feature, t.opset)
    if wanted is None:
        return block.choose(t, known)
    if wanted not in known:
        raise BlockError(f"{block.spelled} has no lowering {wanted!r} at {t.feature.label}; it has {', '.join(known)}")
    return wanted


def _recorded(site: Site, source: str) -> RecordedSite:
    return RecordedSite(
        site.path, site.type, source, site.shape, site.dtype, site.stride, site.consumers, site.position, site.others
    )


def _readers(site: Site) -> frozenset[Reader]:
    """The readers of a site; a tensor that nothing reads has itself, so that blocks can be chained behind it."""
    return site.readers or frozenset({site.tensor})
