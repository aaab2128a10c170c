"""Finding: candidates, reading, proof, and of what overlaps, the largest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..blocks.block import Block
from ..errors import ModelError
from ..graph.constants import Constants
from ..graph.index import GraphIndex
from ..graph.layouts import Layouts
from ..graph.module_paths import ModuleTree
from ..graph.open_sizes import at_sizes, shapes_to_try
from ..graph.part import Part
from ..graph.shapes import ShapeTable
from ..messages import listed
from ..modelfile.model import ModelFile
from . import alike
from .explained import in_evaluation, left_of_training, times
from .findings import FormFindings
from .found import Found
from .in_functions import found_in_functions, has_calls
from .reading import Reading
from .regions import Region, Regions, overlaps
from .search import Match, Search
from .sizes_of_parts import closed, with_sizes
from .uses import Kind

if TYPE_CHECKING:
    from ..modelfile.model import ModelSource

_NEEDED = ("onnxruntime", "torch")
_SOFTMAX = frozenset({"Softmax", "Attention"})
_MOST_POSITIONS = 4096
"""of a map whose size is chosen, where they may be compared with each other: that takes memory by their square"""


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
    opened = ModelFile.load(model)
    if has_calls(opened):
        with suppress(ModelError):  # calls that cannot be written out stay what they are
            return found_in_functions(opened, lambda flat: _Finding(flat).at_any_size())
    return _Finding(opened).at_any_size()


class _Finding:
    def __init__(self, model: ModelFile) -> None:
        self._model, self._index = model, GraphIndex(model)
        self._shapes, self._constants = ShapeTable(self._index), Constants(self._index)
        self._maps = Layouts(self._index)
        self._search = Search()
        self._lacking = [name for name in _NEEDED if find_spec(name) is None]

    def at_any_size(self) -> list[Found]:
        """What is found. Where the model leaves sizes open, first what is a block at two choices of these: sizes that
        an exporter computes elsewhere are numbers there. Then what is left, with open sizes.
        """
        shapes = [] if self._lacking else list(shapes_to_try(self._index))
        if not shapes:
            return self.found()
        first, second = (_Finding(at_sizes(self._model, each)) for each in shapes)
        proven = list(self._at_both(first, second))
        rest = self.found(lambda part: not any(overlaps(part, other.part) for other in proven))
        return sorted([*proven, *rest], key=lambda each: each.part.nodes[0])

    def _at_both(self, first: _Finding, second: _Finding) -> Iterator[Found]:
        """What is proven in two copies of the model, as it stands in the model."""
        found = [each for each in first.found(first._fits_memory) if each.proven and second.is_there(each)]
        if found:
            self._shapes.infer()
            rank = Regions(self._index, self._shapes, self._constants).rank
            form = FormFindings(self._model, self._index)
            for each in found:
                part = with_sizes(each.part, self._shapes)
                if part is not None and (whole := closed(part, self._index, rank)) is not None:
                    yield replace(each, part=whole, findings=form.of(whole))

    def _fits_memory(self, part: Part) -> bool:
        return part.feature.area <= _MOST_POSITIONS or Kind.PRODUCT not in self._read(part).kinds

    def is_there(self, found: Found) -> bool:
        """Whether the same nodes are the same block in this copy of the model."""
        self._shapes.infer()
        part = with_sizes(found.part, self._shapes)
        return part is not None and found.block is not None and self._search.proves(found.block, self._read(part))

    def found(self, wanted: Callable[[Part], bool] = lambda _: True) -> list[Found]:
        """Parts that are proven, the largest of those that overlap, and the others that are attention by their form; of
        those that are ``wanted``.
        """
        self._shapes.infer()
        index, inserted = self._index, self._index.insertion_of.keys()
        every = Regions(index, self._shapes, self._constants)
        regions = [each for each in every if inserted.isdisjoint(each.part.nodes) and wanted(each.part)]
        matches = [] if self._lacking else list(self._matches(regions))
        matches = [each for each in matches if not any(_goes_on(each, other) for other in matches)]
        taken: list[tuple[Part, Match | None]] = []
        for part, match in sorted(matches, key=lambda each: -len(each[0].nodes)):
            _take(taken, part, match)
        for region in self._by_form(regions):
            _take(taken, region.part, None)
        shared = [] if self._lacking else list(self._shared(every, taken))
        if not taken and not shared:
            return []
        tree, form = ModuleTree(index), FormFindings(self._model, index)
        found = [self._told(part, match, tree, form) for part, match in taken]
        for part, match, outside in shared:
            readers = listed([repr(index.label(each)) for each in outside], 3)
            told = self._told(part, match, tree, form)
            note = f"what is computed in the middle of it is read by {readers}, too"
            found.append(replace(told, note="; ".join(filter(None, (told.note, note)))))
        return sorted(found, key=lambda each: each.part.nodes[0])

    def _matches(self, regions: Iterable[Region]) -> Iterator[tuple[Part, Match]]:
        proven: dict[tuple[str, frozenset[int]], tuple[int, ...]] = {}
        for region in regions:
            reading = self._read(region.part)
            key, matrices = (region.part.output, region.evidence), reading.matrices
            if matrices and proven.get(key) == matrices:  # the same with what stands before it
                continue
            if left_of_training(reading):
                continue  # no module does that in evaluation
            for part in self._layouts(reading):
                match = self._search.match(reading if part is region.part else self._read(part))
                if match is not None:
                    proven[key] = matrices
                    yield part, match
                    break

    def _shared(
        self, regions: Regions, taken: Sequence[tuple[Part, Match | None]]
    ) -> Iterator[tuple[Part, Match, list[int]]]:
        """Blocks whose gate, or something else in the middle of them, is read by nodes outside, with these."""
        nodes = {each for part, _ in taken for each in part.nodes} | self._index.insertion_of.keys()
        for region, outside in regions.shared(nodes):
            if nodes.isdisjoint(region.part.nodes) and alike.is_gate(region, self._index):
                match = self._search.match(self._read(region.part))
                if match is not None:
                    nodes.update(region.part.nodes)
                    yield region.part, match, outside

    def _read(self, part: Part) -> Reading:
        return Reading(part, self._index, self._shapes, self._constants)

    def _layouts(self, reading: Reading) -> Iterator[Part]:
        """A part as it stands, and with its channels last where its weights speak for that: what is likelier first."""
        part, last = reading.part, self._channels_last(reading)
        if last is None:
            yield part
        else:
            yield from (last, part) if self._is_moved(part) else (part, last)

    def _channels_last(self, reading: Reading) -> Part | None:
        part = reading.part
        shape = self._shapes.lookup(part.input)[1]
        if part.channels_last or shape is None or not isinstance(channels := shape[3], int) or channels == shape[1]:
            return None
        widths = reading.widths
        likely = channels in widths and (shape[1] not in widths or self._is_moved(part))
        return self._with_channels_last(part, channels) if likely else None

    def _is_moved(self, part: Part) -> bool:
        """Whether what enters a part is known to be [N, H, W, C], or may be."""
        maps = self._maps
        return maps.foreign(part.input) is not None or maps.moved(part.input) is not None

    def _with_channels_last(self, part: Part, channels: int) -> Part:
        shape = self._shapes.lookup(part.input)[1] or ()
        height, width = (size if isinstance(size, int) else None for size in shape[1:3])
        feature = replace(part.feature, channels=channels, height=height, width=width)
        return replace(part, feature=feature, channels_last=True)

    def _by_form(self, regions: Iterable[Region]) -> Iterator[Region]:
        """Those that are attention by their form, the smallest first."""
        for region in sorted(regions, key=lambda each: len(each.part.nodes)):
            softmax = _SOFTMAX & {self._index.operators[node_index] for node_index in region.part.nodes}
            if alike.is_gate(region, self._index) or (softmax and alike.is_attention(self._read(region.part))):
                yield region

    def _told(self, part: Part, match: Match | None, tree: ModuleTree, form: FormFindings) -> Found:
        where, findings = self._place(part, tree), form.of(part)
        if match is not None:
            error, equals = match.proof.max_error, match.equals
            note = _layout(part)
            return Found(where, part, match.block, match.weights, True, error, findings, note, equals)
        shape = self._shapes.lookup(part.input)[1]
        if self._is_moved(part) and shape is not None and isinstance(channels := shape[3], int):
            part = self._with_channels_last(part, channels)
        like, note = self._alike(self._read(part))
        return Found(where, part, like, findings=findings, note=note)

    def _alike(self, reading: Reading) -> tuple[Block | None, str]:
        """(the block that a part is like, what it is in words)."""
        if not self._lacking:
            if (multiple := self._search.multiple(reading)) is not None:
                block, factor = multiple
                folded = "an optimiser can have put the rest into the weights of what follows"
                return block, f"{block.spelled} {times(factor)}; {folded}"
            if reasons := left_of_training(reading):
                match = self._search.match(replace(reading, instead=in_evaluation(reading)))
                if match is not None:
                    return match.block, f"{match.block.spelled} with {listed(reasons)}; export it in evaluation mode"
        like = next(self._search.alike(reading, look=not self._lacking), None) if reading.matrices else None
        note = alike.described(reading.part, self._index, like.spelled if like else None)
        for reason in left_of_training(reading):
            note += f"; it has {reason}"
        if self._lacking:
            note += f"; not proven, because {' and '.join(self._lacking)} is not installed here"
        return like, note

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


def _layout(part: Part) -> str:
    """How a part has its maps, in words, where that is not [N, C, H, W]."""
    if part.gives_tokens:
        return "a map [N, H, W, C] enters, and [N, H * W, C] leaves"
    return "its maps are [N, H, W, C]" if part.channels_last else ""


def _goes_on(one: tuple[Part, Match], other: tuple[Part, Match]) -> bool:
    """Whether a part is another one and something behind it that does nothing there, such as padding by 0."""
    (part, match), (less, same) = one, other
    equal = match.block.spelled == same.block.spelled and match.block.values == same.block.values
    return equal and part.input == less.input and set(less.nodes) < set(part.nodes)


def _take(taken: list[tuple[Part, Match | None]], part: Part, match: Match | None) -> None:
    """Add a part that shares no node with those that are there."""
    if not any(overlaps(part, other) for other, _ in taken):
        taken.append((part, match))
