"""Context: one model as selectors see it, its graph, modules, shapes and blocks, each worked out when first needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from ..feature_map import Dimension, channels_first, fits_image
from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from ..graph.shapes import ShapeTable
from ..messages import listed, shape_text
from ..modelfile.model import ModelFile

if TYPE_CHECKING:
    from ..recognition import BlockTree


class Context:
    """A model, and what selectors and sites ask of it."""

    def __init__(self, model: ModelFile) -> None:
        self.model = model
        self.index = GraphIndex(model)
        self.shapes = ShapeTable(self.index)

    @cached_property
    def tree(self) -> ModuleTree:
        """The model's modules."""
        return ModuleTree(self.index)

    @cached_property
    def blocks(self) -> BlockTree:
        """The model's blocks, recognised by structure."""
        from ..recognition import recognise

        self.shapes.infer()
        return recognise(self.index, self.shapes, self.tree)

    @cached_property
    def image(self) -> tuple[Dimension, ...]:
        """The shape of the largest input that is an image, channels first, or of the first of these; () without one."""
        return max(self._images, key=_positions, default=())

    @cached_property
    def _images(self) -> list[tuple[Dimension, ...]]:
        """The shapes of all inputs [N, C, H, W], channels first."""
        shapes = (self.shapes.lookup(name)[1] for name in self.index.free_inputs)
        return [channels_first(shape) for shape in shapes if shape is not None and len(shape) == 4]

    def fits_image(self, shape: tuple[Dimension, ...]) -> bool:
        """See :func:`graphsurgery.feature_map.fits_image`."""
        return fits_image(self.image, shape)

    def is_map(self, tensor: str) -> bool:
        """Whether a tensor is known to be a float map [N, C, H, W] of the image."""
        return self.shapes.is_feature_map(tensor) and self.fits_image(self.shapes.lookup(tensor)[1] or ())

    def stride(self, tensor: str, shape: tuple[Dimension, ...]) -> int | None:
        """How often a map goes into the image, the same in height and width; None where it is no map of the image.

        Where the sizes do not tell, being dynamic or rounded, the operators on the way do; where there are several
        inputs, these come first: the largest can be a mask, or belong to another network.
        """
        strides = {_times(whole, part) for whole, part in zip(self.image[2:], shape[2:], strict=False)}
        stride = strides.pop() if len(strides) == 1 else None
        if stride is None or len(self._images) > 1:
            return self.blocks.stride(tensor) or stride
        return stride

    def maps(self) -> list[str]:
        """All tensors that are known to be float maps of the image, in the order of the model."""
        index = self.index
        return [name for node in sorted(index.active) for name in index.nodes[node].output if self.is_map(name)]

    def shaped(self, name: str, tensor: str) -> str:
        """A name for a message, with the shape of its tensor where that is known."""
        shape = self.shapes.lookup(tensor)[1] if tensor else None
        return f"{name} {shape_text(shape)}" if shape is not None else name

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
