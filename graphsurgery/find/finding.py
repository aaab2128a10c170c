"""Finding: candidates, reading, proof, and of what overlaps, the largest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from ..graph.part import Part
from ..graph.shapes import ShapeTable
from ..modelfile.model import ModelFile
from .constants import Constants
from .found import Found
from .reading import Reading
from .regions import Region, Regions, overlaps
from .findings import FormFindings
from .search import Match, Search

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource


def find(model: ModelSource) -> list[Found]:
    """The attention in a model that an exporter wrote, in the order of the nodes.

    Parameters
    ----------
    model:
        Its weights are read where a part of it may be a block.

    Returns
    -------
    list[Found]
        No two share a node. What an insertion of graphsurgery's own wrote is left out.
    """
    loaded = ModelFile.load(model)
    index = GraphIndex(loaded)
    shapes, constants = ShapeTable(index), Constants(index)
    shapes.infer()
    regions, search = Regions(index, shapes, constants), Search()
    matches: list[tuple[Region, Match]] = []
    for region in regions:
        if index.insertion_of.keys() & set(region.part.nodes):
            continue
        match = search.match(Reading(region.part, index, constants))
        if match is not None:
            matches.append((region, match))
    tree, form = ModuleTree(index), FormFindings(loaded, index)
    found: list[Found] = []
    for region, match in sorted(matches, key=lambda each: -len(each[0].part.nodes)):
        if not any(overlaps(region.part, other.part) for other in found):
            found.append(_proven(region.part, match, form.of(region.part), place(region.part, index, tree)))
    return sorted(found, key=lambda each: each.part.nodes[0])


def _proven(part: Part, match: Match, findings: tuple[str, ...], where: str) -> Found:
    error = match.proof.max_error
    return Found(where, part, match.block, match.weights, proven=True, max_error=error, findings=findings)


def place(part: Part, index: GraphIndex, tree: ModuleTree) -> str:
    """A selector of a part: the outermost module with just these nodes, or the tensor that leaves."""
    nodes = set(part.nodes)
    for path, module in tree.modules.items():
        if {node for node in module.nodes if node in index.active} == nodes:
            return path
    return f"tensor:{part.output}"
