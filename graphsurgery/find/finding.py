"""Finding: candidates, reading, proof, and of what overlaps, the largest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from ..graph.part import Part
from ..graph.shapes import ShapeTable
from ..modelfile.model import ModelFile
from . import alike
from .constants import Constants
from .findings import FormFindings
from .found import Found
from .reading import Reading
from .regions import Region, Regions, overlaps
from .search import Match, Search

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource

_NEEDED = ("onnxruntime", "torch")
_SOFTMAX = frozenset({"Softmax", "Attention"})


def find(model: ModelSource) -> list[Found]:
    """The attention in a model that an exporter wrote, in the order of the nodes.

    Parameters
    ----------
    model:
        A path, bytes, ``onnx.ModelProto``, onnx-graphsurgeon ``Graph`` or ``ModelFile``. Its weights are read where a
        part of it may be a block.

    Returns
    -------
    list[Found]
        No two share a node. Blocks that graphsurgery inserted are left out. Without onnxruntime or torch, nothing is
        proven.

    Raises
    ------
    ModelError
        If the model cannot be read.

    Examples
    --------
    >>> [each.block.spelled for each in find("mobilenet_v3.onnx")]   # doctest: +SKIP
    ['se', 'se', 'se']
    """
    return _Finding(ModelFile.load(model)).found()


class _Finding:
    def __init__(self, model: ModelFile) -> None:
        self._model, self._index = model, GraphIndex(model)
        self._shapes, self._constants = ShapeTable(self._index), Constants(self._index)
        self._search = Search()
        self._lacking = [name for name in _NEEDED if find_spec(name) is None]

    def found(self) -> list[Found]:
        """Parts that are proven, the largest of those that overlap, and the others that are attention by their form."""
        self._shapes.infer()
        index, inserted = self._index, self._index.insertion_of.keys()
        regions = [
            each for each in Regions(index, self._shapes, self._constants) if inserted.isdisjoint(each.part.nodes)
        ]
        matches = [] if self._lacking else list(self._matches(regions))
        taken: list[tuple[Part, Match | None]] = []
        for part, match in sorted(matches, key=lambda each: -len(each[0].nodes)):
            _take(taken, part, match)
        for region in self._by_form(regions):
            _take(taken, region.part, None)
        if not taken:
            return []
        tree, form = ModuleTree(index), FormFindings(self._model, index)
        found = [self._told(part, match, tree, form) for part, match in taken]
        return sorted(found, key=lambda each: each.part.nodes[0])

    def _matches(self, regions: Iterable[Region]) -> Iterator[tuple[Part, Match]]:
        proven: dict[tuple[str, frozenset[int]], tuple[int, ...]] = {}
        for region in regions:
            key, matrices = (region.part.output, region.evidence), self._read(region.part).matrices
            if matrices and proven.get(key) == matrices:  # the same with what stands before it
                continue
            for part in self._layouts(region.part):
                match = self._search.match(self._read(part))
                if match is not None:
                    proven[key] = matrices
                    yield part, match
                    break

    def _read(self, part: Part) -> Reading:
        return Reading(part, self._index, self._shapes, self._constants)

    def _layouts(self, part: Part) -> Iterator[Part]:
        """A part as it stands, and with its channels last where its weights speak for that."""
        yield part
        shape = self._shapes.lookup(part.input)[1]
        if shape is None or not isinstance(channels := shape[3], int) or channels == shape[1]:
            return
        widths = self._read(part).widths
        if channels in widths and shape[1] not in widths:
            height, width = (size if isinstance(size, int) else None for size in shape[1:3])
            yield replace(
                part,
                feature=replace(part.feature, channels=channels, height=height, width=width),
                channels_last=True,
            )

    def _by_form(self, regions: Iterable[Region]) -> Iterator[Region]:
        """Those that are attention by their form, the smallest first."""
        for region in sorted(regions, key=lambda each: len(each.part.nodes)):
            softmax = _SOFTMAX & {self._index.operators[node_index] for node_index in region.part.nodes}
            if alike.is_gate(region, self._index) or (softmax and alike.is_attention(self._read(region.part))):
                yield region

    def _told(self, part: Part, match: Match | None, tree: ModuleTree, form: FormFindings) -> Found:
        where, findings = self._place(part, tree), form.of(part)
        if match is not None:
            error = match.proof.max_error
            return Found(where, part, match.block, match.weights, proven=True, max_error=error, findings=findings)
        reading = self._read(part)
        like = next(self._search.alike(reading, look=not self._lacking), None) if reading.matrices else None
        note = alike.described(part, self._index, like.spelled if like else None)
        if self._lacking:
            note += f"; not proven, because {' and '.join(self._lacking)} is not installed here"
        return Found(where, part, like, findings=findings, note=note)

    def _place(self, part: Part, tree: ModuleTree) -> str:
        """A selector of a part: the outermost module with just these nodes, or the tensor that leaves. Nodes that tell
        no module, which an optimiser put there, make no difference.
        """
        strays = tree.strays & self._index.active
        nodes = set(part.nodes) - strays
        if nodes and part.nodes[-1] in nodes:
            for path, module in tree.modules.items():
                if {node for node in module.nodes if node in self._index.active} - strays == nodes:
                    return path
        return f"tensor:{part.output}"


def _take(taken: list[tuple[Part, Match | None]], part: Part, match: Match | None) -> None:
    """Add a part that shares no node with those that are there."""
    if not any(overlaps(part, other) for other, _ in taken):
        taken.append((part, match))
