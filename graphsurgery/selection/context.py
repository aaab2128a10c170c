"""Context: one model as selectors see it, its graph, modules, shapes and blocks, each worked out when first needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..feature_map import Dimension, channels_first, fits_image
from ..graph.index import GraphIndex
from ..graph.layouts import Layouts
from ..graph.module_paths import ModuleTree
from ..graph.shapes import ShapeTable, TensorType
from ..graph.work import Work
from ..messages import listed, shape_text
from ..modelfile.model import ModelFile
from ..request import Shapes
from .suggestions import Suggestions

if TYPE_CHECKING:
    from ..recognition import BlockTree
    from .advice import Adviser


class Context:
    """A model, and what selectors and sites ask of it. ``shapes``: of tensors, where the user knows more of them."""

    def __init__(self, model: ModelFile, shapes: Shapes = MappingProxyType({})) -> None:
        self.model = model
        self.index = GraphIndex(model)
        self.shapes = ShapeTable(self.index, shapes)
        self.layouts = Layouts(self.index)
        self.suggestions = Suggestions()
        self._is_map_of: dict[TensorType, bool] = {}

    @cached_property
    def work(self) -> Work:
        """What the graph takes, by the shapes that are known of it anyway."""
        return Work(self.index, self.shapes.known)

    @cached_property
    def tree(self) -> ModuleTree:
        """The model's modules."""
        return ModuleTree(self.index)

    @cached_property
    def blocks(self) -> BlockTree:
        """The model's blocks, recognised by structure."""
        from ..recognition import recognise

        self.shapes.infer()
        return recognise(self.index, self.shapes, self.tree, self.layouts)

    @cached_property
    def adviser(self) -> Adviser:
        """Whether places are good ones for a block."""
        from .advice import Adviser

        return Adviser(self.blocks, self.suggestions)

    @cached_property
    def image(self) -> tuple[Dimension, ...]:
        """The shape of the largest input that is an image, channels first, or of the first of these; () without one."""
        return max(self._images, key=_positions, default=())

    @cached_property
    def _images(self) -> list[tuple[Dimension, ...]]:
        """The shapes of all inputs [N, C, H, W], channels first."""
        shapes = ((name, self.shapes.lookup(name)[1]) for name in self.index.free_inputs)
        return [self._channels_first(name, shape) for name, shape in shapes if shape is not None and len(shape) == 4]

    def _channels_first(self, tensor: str, shape: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
        """The shape of an input as [N, C, H, W]; sizes tell its layout only where no operator does."""
        if self.layouts.is_channels_last(tensor):
            return shape[0], shape[3], shape[1], shape[2]
        return shape if self.layouts.is_channels_first(tensor) else channels_first(shape)

    def fits_image(self, shape: tuple[Dimension, ...]) -> bool:
        """See :func:`graphsurgery.feature_map.fits_image`."""
        return fits_image(self.image, shape)

    def is_map(self, tensor: str) -> bool:
        """Whether a tensor is known to be a float map [N, C, H, W] of the image, and of no other layout."""
        declared = self.shapes.lookup(tensor)
        found = self._is_map_of.get(declared)  # large models have few types
        if found is None:
            found = self.shapes.is_feature_map(tensor) and self.fits_image(declared[1] or ())
            self._is_map_of[declared] = found
        return found and not self.layouts.foreign(tensor) and not self.layouts.moved(tensor)

    def stride(self, tensor: str, shape: tuple[Dimension, ...]) -> int | None:
        """How often a map goes into the image, the same in height and width; None where it is no map of the image.

        Where the sizes do not tell, being dynamic or rounded, the operators on the way do; where there are several
        inputs, these come first: the largest can be a mask, or belong to another network.
        """
        stride = self.stride_of(shape)
        if stride is None or len(self._images) > 1:
            return self.blocks.stride(tensor) or stride
        return stride

    def stride_of(self, shape: tuple[Dimension, ...]) -> int | None:
        """The same, as far as sizes tell it."""
        strides = {_times(whole, part) for whole, part in zip(self.image[2:], shape[2:], strict=False)}
        return strides.pop() if len(strides) == 1 else None

    def maps(self) -> list[str]:
        """All tensors that are known to be float maps of the image, in the order of the model."""
        index = self.index
        return [name for node in sorted(index.active) for name in index.nodes[node].output if self.is_map(name)]

    def shaped(self, name: str, tensor: str) -> str:
        """A name for a message, with the shape of its tensor where that is known."""
        shape = self.shapes.lookup(tensor)[1] if tensor else None
        return f"{name} {shape_text(shape)}" if shape is not None else name

    def accepted(self, candidates: Mapping[str, str]) -> dict[str, str]:
        """Those of some selectors, each given with its tensor, that would be accepted where one is asked for."""
        return self.suggestions.accepted(candidates)

    def listed(self, candidates: Mapping[str, str], most: int = 6) -> str:
        """Selectors, each given with its tensor, for a message: with the shapes of the tensors."""
        return listed([self.shaped(*candidate) for candidate in candidates.items()], most)


def tensor_selectors(names: Iterable[str]) -> dict[str, str]:
    """The selectors of tensors, each with its tensor."""
    return {f"tensor:{name}": name for name in names if name}


def _positions(shape: tuple[Dimension, ...]) -> int:
    """How many positions a map [N, C, H, W] has; 0 where that is not known."""
    return prod(size if isinstance(size, int) else 0 for size in shape[2:])


def _times(whole: Dimension, part: Dimension) -> int | None:
    """How often one size goes into another, where both are known and it does."""
    if not isinstance(whole, int) or not isinstance(part, int) or not part or whole % part:
        return None
    return whole // part
