"""What arrives at the blocks when the model runs, and what leaves them: as much of it as the memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RequestError
from ..feature_map import Array, Dimension, type_name
from ..graph.shapes import ShapeTable
from ..insertion.activations import IMAGE_SIDES, Activations, activations, upstream
from ..messages import shape_text
from ..request import Shapes
from ..runtime.sample_inputs import graph_inputs
from .memory import Memory, alive_at_once, shapes_in
from .smaller import Comparable, Size, largest_size

if TYPE_CHECKING:
    from ..modelfile.model import ModelFile
    from ..modelfile.record import RecordedSite


@dataclass(frozen=True)
class Arriving:
    """What the model gave at each block."""

    found: Activations
    sizes: dict[str, Size] = field(default_factory=dict)
    """id -> the height and width to cut the activation down to"""

    @property
    def failure(self) -> str:
        """Why there is nothing; "" if there is."""
        return self.found.failure

    def at(self, block: Comparable) -> Iterator[tuple[str, Array, Array | None]]:
        """(image, what arrives, what leaves): the latter None where the whole activation is too large to compare."""
        size = self.sizes.get(block.insertion.id)
        for image, tensors in self.found.images:
            given = tensors[block.cutout.input]
            if size is None:
                yield image, given, tensors[block.cutout.output]
            else:
                yield image, np.ascontiguousarray(given[:, :, : size[0], : size[1]]), None

    def contradiction(self, block: Comparable, site: RecordedSite, shapes: ShapeTable) -> str:
        """How the map that the block reads is none that it was inserted for; "" if it is one.

        What really arrives counts, and where nothing does, what the graph says.
        """
        tensor, kind = block.cutout.input, _element_type(block)
        stated: list[tuple[int, Sequence[Dimension] | None]] = [shapes.lookup(tensor)] if self.failure else []
        for given, shape in [*((kind, tensors[tensor].shape) for _, tensors in self.found.images), *stated]:
            if given not in (0, kind) or not _fits(shape, site.shape):
                what = f"{type_name(given or kind)}{f' {shape_text(shape)}' if shape is not None else ''}"
                return (
                    f"it was inserted for a map that is {site.dtype} {shape_text(site.shape)}, "
                    f"and what it reads, {tensor!r}, is {what}"
                )
        return ""

    def note(self, block: Comparable) -> str:
        """What is said of a block that was compared on a part of what arrives; "" for one on the whole."""
        if block.smaller or (size := self.sizes.get(block.insertion.id)) is None:
            return block.note
        return (
            f"of the activation that arrives, {size[0]} x {size[1]} were compared: the whole would take too much memory"
        )


def activations_of(
    model: ModelFile, blocks: Sequence[Comparable], images: Path | None, memory: Memory, given: Shapes
) -> Arriving:
    """Run the model up to the blocks, and through those that can be compared on the whole of what arrives.

    ``given``: sizes for inputs that leave them open.
    """
    if not blocks:
        return Arriving(Activations(failure="there is no whole block to run up to"))
    part = upstream(model, _ends(blocks, {}))
    shapes = _shapes(part, given)
    sizes = {block.insertion.id: size for block in blocks if (size := _size(block, shapes, memory))}
    wanted = _ends(blocks, sizes)
    if sizes:
        part = upstream(model, wanted)
    numbers = alive_at_once(part.structure.graph, shapes)
    if not memory.runs(numbers):
        failure = f"running the model up to there would take {memory.run(numbers)}, and the limit is {memory.limit} GB"
        return Arriving(Activations(failure=failure))
    return Arriving(activations(model, wanted, images, given), sizes)


def _fits(shape: Sequence[Dimension] | None, recorded: Sequence[Dimension]) -> bool:
    """Whether a shape contradicts no size of the recorded one."""
    if shape is None:
        return True
    pairs = zip(shape, recorded, strict=False)
    return len(shape) == len(recorded) and all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _ends(blocks: Sequence[Comparable], sizes: Mapping[str, Size]) -> list[tuple[str, int]]:
    """The tensors to fetch, with their element types: before each block, and after it where it is compared whole."""
    wanted: dict[str, int] = {}
    for block in blocks:
        kind = wanted[block.cutout.input] = _element_type(block)
        if block.insertion.id not in sizes:
            wanted[block.cutout.output] = kind
    return list(wanted.items())


def _element_type(block: Comparable) -> int:
    """Of what a block reads and gives, according to its record."""
    return int(block.cutout.model.graph.input[0].type.tensor_type.elem_type)


def _shapes(part: ModelFile, given: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes of its tensors when it runs; none if nobody can feed it."""
    try:
        inputs = graph_inputs(part.structure, given)
    except RequestError:
        return {}
    return shapes_in(part.structure, {each.name: each.concrete(IMAGE_SIDES[0]) for each in inputs})


def _size(block: Comparable, shapes: Mapping[str, tuple[int, ...]], memory: Memory) -> Size | None:
    """To which size the activation is cut down; None if it is compared whole."""
    if block.smaller:
        return block.size
    shape = shapes.get(block.cutout.input)
    size = largest_size(block.cutout, shape, memory) if shape is not None and len(shape) == 4 else None
    return size if shape is not None and size != shape[2:] else None
