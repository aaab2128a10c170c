"""The plan of an edit: the order of the insertions, their ids, and which tensor each block reads and produces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..blocks.block import Array, Block
from ..blocks.size import check_size
from ..errors import SiteError
from ..graph import module_paths
from ..modelfile.model import ModelFile
from ..request import Request
from ..selection.branches import Consumer, OutputConsumer, nodes_of
from ..selection.sites import Site, SiteFinder
from ..template.names import UniqueNames
from . import qdq

if TYPE_CHECKING:
    from ..graph.part import Part


@dataclass(frozen=True)
class PlannedInsertion:
    """One insertion that is asked for: a block and its weights, at a site."""

    request: Request
    """where seed, gate, target, lowering and precision stand"""
    block: Block
    site: Site
    weights: Callable[[int, str], Mapping[str, Array]]
    """makes the weights for the seed and the id of the insertion"""
    init: str
    """"default", "identity", "calibrated" or, for those of a file, "weights" """
    warnings: tuple[str, ...] = ()
    """what the user should know of how the block was made"""
    source: str = ""
    """FILE[:PREFIX] of the weights of a file"""
    pair: qdq.Pair | None = None
    """the QuantizeLinear and DequantizeLinear to put after the block"""
    part: Part | None = None
    """what the block is to stand in the place of"""
    same: bool = False
    """whether that computes the same"""


@dataclass
class Step:
    """One insertion and its place among those at the same tensor."""

    insertion: PlannedInsertion
    id: str
    """free in this model: ``model.8.simam``"""
    scope: str
    """how the block's nodes are called: ``/model.8/simam``"""
    previous: int | None
    """index of the step whose output the block reads; None: it reads the tensor of the site"""
    output: str | None
    """the name that the output has to have; None: the one that the block's last node gives it"""


class Plan:
    """Everything that is decided before anything is written.

    Blocks for the same consumers of a tensor are chained in the order in which they are given; blocks for some of its
    consumers come after those for more of them.

    Parameters
    ----------
    finder:
        The model, indexed.
    insertions:
        What is asked for; put into the order of :func:`ordered`.

    Raises
    ------
    BlockError
        If a block cannot work at its site.
    SiteError
        If a site lies inside of an earlier insertion, or two insertions tear one another's consumers apart.
    """

    def __init__(self, finder: SiteFinder, insertions: Iterable[PlannedInsertion]) -> None:
        self._index = finder.index
        self.earlier = finder.index.insertions
        """the insertions that the graph has already"""
        self.owners = {node_index: earlier.id for node_index, earlier in self._index.insertion_of.items()}
        """index of a node of an earlier insertion -> its id"""
        self.names = UniqueNames(set(self._index.names))
        self._ids = ids_of(finder.tree, finder.model)
        self.steps: list[Step] = []
        self.moved: dict[str, str] = {}
        """tensor of a site that is a graph output -> the new name under which its producer gives it"""
        self.last: dict[tuple[str, Consumer], int] = {}
        """tensor of a site and one of its consumers -> index of the step whose output the consumer reads in the end"""
        for insertion in ordered(insertions):
            with insertion.request.concerned():
                self._add(insertion)

    def _add(self, insertion: PlannedInsertion) -> None:
        site, block = insertion.site, insertion.block
        block.check(site.feature)
        check_size(block, site.feature)
        self._check_free(site)
        previous, output = self._previous(site), None
        if site.graph_output:  # the last block gives the output its name, so whatever comes before needs another one
            output, moved = site.tensor, self.names.reserve(f"{site.tensor}_before")
            if previous is None:
                self.moved[site.tensor] = moved
            else:
                self.steps[previous].output = moved
        self.last.update(dict.fromkeys(((site.tensor, consumer) for consumer in _consumers(site)), len(self.steps)))
        id, scope = named(site, block, self._ids)
        self.steps.append(Step(insertion, id, scope, previous, output))

    def _previous(self, site: Site) -> int | None:
        """Index of the step that the site's consumers read the output of so far."""
        found = {self.last.get((site.tensor, consumer)) for consumer in _consumers(site)}
        if len(found) > 1:
            raise SiteError(
                f"two insertions at {site.tensor!r} have some of their consumers in common and some not; a block can "
                "only stand in front of all consumers of another one, or behind it in front of some of them"
            )
        return found.pop()

    def _check_free(self, site: Site) -> None:
        """SiteError for a tensor that no node can be put after, or that is inside of an earlier insertion."""
        if site.graph_output and site.tensor in self._index.inputs:
            raise SiteError(
                f"{site.tensor!r} is an input and an output of the model at once; there is no node to insert behind"
            )
        consumers = self._index.consumers.get(site.tensor, ())
        owner = self.owners.get(self._index.producer.get(site.tensor, -1))
        if owner and consumers and not site.graph_output and all(self.owners.get(c) == owner for c in consumers):
            raise SiteError(
                f"{site.tensor!r} is inside the insertion {owner}; a block goes in front of it or behind it"
            )
        rewired = nodes_of(site.rewired)
        owners = [{self.owners[c] for c in nodes if c in self.owners} for nodes in (rewired, set(consumers) - rewired)]
        if torn := owners[0] & owners[1]:
            raise SiteError(
                f"some of the nodes that read {site.tensor!r} are a part of the insertion {min(torn)}; "
                "a block goes in front of the whole insertion or behind it"
            )


def ids_of(tree: module_paths.ModuleTree, model: ModelFile) -> UniqueNames:
    """The ids that no insertion can have: what modules are called, those that were replaced included."""
    ids = UniqueNames(set(tree.modules))
    for earlier in model.insertions():
        ids.taken.add(earlier.id)
        if earlier.replaced:
            paths = (module_paths.from_name(node.name) for node in earlier.replaced.graph().node)
            ids.taken.update(module for path in paths for module in module_paths.enclosing(path))
    return ids


def named(site: Site, block: Block, ids: UniqueNames) -> tuple[str, str]:
    """A free id for a block at a site, and how its nodes are called: ``model.8.simam`` and ``/model.8/simam``."""
    path = (site.path or "").strip("/")
    wish = ".".join(part for part in (module_paths.join(path.split("/")), block.name) if part)
    id = ids.reserve(wish)
    return id, "/" + "/".join(part for part in (path, id.rpartition(".")[2]) if part)


def ordered(insertions: Iterable[PlannedInsertion]) -> list[PlannedInsertion]:
    """The insertions in an order in which they can be carried out; ordering twice changes nothing.

    Of blocks at one tensor, one for more of its consumers comes first, and so stands nearer to the tensor; those for
    the same consumers stay in the order in which they are given.
    """
    result = list(insertions)
    places: dict[tuple[str, tuple[str, ...] | None], list[int]] = {}
    for place, insertion in enumerate(result):
        places.setdefault((insertion.site.tensor, insertion.site.function), []).append(place)
    for at_one_tensor in places.values():
        wide_first = sorted((result[place] for place in at_one_tensor), key=_width)
        for place, insertion in zip(at_one_tensor, wide_first, strict=True):
            result[place] = insertion
    return result


def _width(insertion: PlannedInsertion) -> tuple[bool, int]:
    """Those that are to become an output of the model come before all others, because they pass its name on."""
    return not insertion.site.graph_output, -len(insertion.site.rewired)


def _consumers(site: Site) -> frozenset[Consumer]:
    """The consumers of a site; a tensor that nothing reads has one that stands for them, so that blocks can be chained
    after it.
    """
    return site.rewired or frozenset({OutputConsumer(site.tensor)})
