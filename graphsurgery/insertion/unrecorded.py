"""Blocks whose records are lost: a tool dropped the model's metadata, and the names of the nodes are still there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..blocks.registry import all_blocks
from ..errors import InsertionError
from ..graph import module_paths
from ..graph.index import GraphIndex
from ..messages import listed
from ..modelfile.function_body import bodies
from ..modelfile.model import ModelFile
from ..modelfile.record import Insertion, RecordedSite
from .ownership import Owned, Ownership


@dataclass(frozen=True)
class Unrecorded:
    """Nodes that are named as those of an inserted block are, and that are between one tensor and another."""

    scope: str
    """``/model.8/simam``"""
    block: Owned
    constants: tuple[str, ...]
    """the initializers that it reads"""
    names: tuple[str, ...]
    """of its nodes"""
    function: tuple[str, ...] | None
    """domain, name and overload of the local function that it is in"""

    @property
    def id(self) -> str:
        """What the insertion was called: ``model.8.simam``."""
        return module_paths.join(self.scope.split("/"))

    def as_record(self) -> Insertion:
        """A record with what the graph itself tells, to take the block out by."""
        site = RecordedSite(None, None, self.block.source, (None, 1, None, None), "float32", None, ())
        return Insertion(
            id=self.id,
            module="",
            settings={},
            gate="",
            init="",
            target="",
            lowering="",
            site=site,
            output_tensor=self.block.output,
            nodes=self.names,
            initializers=self.constants,
            value_info=(),
            parameters=0,
            stored={},
            original="",
            function=self.function,
        )


def unrecorded(index: GraphIndex, blocks: Iterable[str]) -> list[Unrecorded]:
    """What is named as inserted blocks of these names are, and has no record."""
    known = re.compile(rf"(?:{'|'.join(map(re.escape, blocks))})(?:_\d+)?")
    found, ownership = [], Ownership(index)
    for scope, nodes in ownership.scopes():
        if not known.fullmatch(scope.rpartition("/")[2]) or not index.insertion_of.keys().isdisjoint(nodes):
            continue
        sources, outputs = ownership.boundary(nodes)
        if len(sources) == 1 and len(outputs) == 1:
            read = frozenset[str]().union(*map(index.reads, nodes))
            constants = tuple(sorted(name for name in read if name in index.initializers))
            names = tuple(index.nodes[n].name for n in sorted(nodes))
            found.append(
                Unrecorded(scope, Owned(nodes, sources[0], outputs[0]), constants, names, index.model.function)
            )
    return found


def everywhere(model: ModelFile, blocks: Collection[str]) -> list[Unrecorded]:
    """The same in the main graph of a model and in its functions."""
    return [found for graph in (model, *bodies(model)) for found in unrecorded(GraphIndex(graph), blocks)]


def lost(model: ModelFile) -> str:
    """What to say of a model whose nodes are named as those of inserted blocks are, without a record; "" of others."""
    found = [each.id for each in everywhere(model, list(all_blocks()))]
    if not found:
        return ""
    return (
        f"its nodes are named as those of {listed(found)} are, without a record: if a tool dropped the metadata, "
        "graphsurgery adopt with the recipe of these insertions puts the records back"
    )


def none_recorded(model: ModelFile, what: str) -> InsertionError:
    """The error for a model without records of insertions, where ``what`` (to undo, say) needs some."""
    said, hint = f"{model.name} has no insertions made by graphsurgery, so there is nothing to {what}", lost(model)
    return InsertionError(f"{said}; {hint}" if hint else said)
