"""Sites: places to insert a block, found by selectors or listed for a whole model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from ..errors import SiteError
from ..feature_map import Dimension, FeatureMap, channels_first, float_dtype
from ..graph import quantisation, validity
from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from ..graph.shapes import ShapeTable
from ..messages import listed, shape_text
from ..modelfile.model import ModelFile
from . import quantised_sites
from .branches import Consumer, NodeConsumer, OutputConsumer, in_order, of_nodes
from .consumers import Narrowing
from .resolver import Place, Resolver

if TYPE_CHECKING:
    from ..recognition import BlockTree

_SUSPICIOUS = frozenset(
    {"Conv", "BatchNormalization", "Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Erf", "Reshape", "Transpose"}
)
"""operators behind which a place can be within a convolution and its activation, or within an attention"""
_MOST_UNEVEN = 4
"""how many times more the height of a map may be reduced than its width, or less"""
_FAR = 500  # tensors that are looked at for a hint


@dataclass(frozen=True)
class Site:
    """One place to insert: a tensor [N, C, H, W] and those of its consumers that are to read the block."""

    tensor: str
    shape: tuple[Dimension, ...]
    dtype: str
    path: str | None
    """module path as the model spells it (/model.8); None where the model tells none"""
    type: str | None
    """class of the module, where the model tells it"""
    stride: int | None
    """input height over the height here, where both are known"""
    consumers: tuple[str, ...]
    """the nodes to rewire"""
    graph_output: bool
    """whether the tensor is an output of the model, which is to be the block's"""
    warnings: tuple[str, ...] = ()
    position: str = "after"
    """"before" if the path is of the module in front of which the site is, and not of the one behind which"""
    others: tuple[str, ...] = ()
    """the consumers that go on reading the tensor itself"""
    rewired: frozenset[Consumer] = field(default=frozenset(), compare=False, repr=False)
    """the consumers that are to read the block"""

    @property
    def label(self) -> str:
        """How messages call the site."""
        return self.path.lstrip("/") if self.path else f"the tensor {self.tensor}"

    @property
    def feature(self) -> FeatureMap:
        """What a block needs to know of this place."""
        batch, channels, height, width = (d if isinstance(d, int) else None for d in self.shape)
        assert channels is not None
        return FeatureMap(channels, height, width, self.dtype, batch, self.label)

    def to_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        data = asdict(self)
        del data["position"], data["others"], data["rewired"]
        data.update(shape=list(self.shape), consumers=list(self.consumers), warnings=list(self.warnings))
        return data


class SiteFinder:
    """Finds sites in one model. Holds the model's index, module tree and shapes, each built when first needed."""

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

        return recognise(self.index, self.shapes, self.tree)

    @cached_property
    def _resolver(self) -> Resolver:
        return Resolver(
            self.index,
            self.tree,
            self.shapes,
            is_map=self.is_map,
            blocks=lambda: self.blocks,
            against=self._against,
        )

    def find(self, selectors: Iterable[str], *, position: str = "after", consumers: Sequence[str] = ()) -> list[Site]:
        """The sites behind, or in front of, what the selectors name, each once.

        With ``consumers``, only for the consumers of a tensor that these selectors name. SelectorError or SiteError if
        one of the selectors names nothing. ModelError for a model that no runtime could run: no insertion can make a
        valid one of it.
        """
        validity.check(self.index)
        narrowing = Narrowing(consumers, self._resolver, self.index, self.tree) if consumers else None
        sites: dict[tuple[str, frozenset[Consumer]], Site] = {}
        for selector in selectors:
            for place, chosen in self._places(selector, position):
                if narrowing:
                    tensor, chosen = narrowing.narrowed(place.tensor)
                    place = replace(place, tensor=tensor)
                try:
                    site = self.site(place, chosen, position)
                except SiteError as error:
                    raise (SiteError(place.written.marked(str(error))) if place.written else error) from None
                sites.setdefault((site.tensor, site.rewired), site)
        if narrowing:
            narrowing.check()
        return list(sites.values())

    def _places(self, selector: str, position: str) -> list[tuple[Place, set[Consumer]]]:
        if position == "before":
            return [(place, of_nodes(nodes)) for place, nodes in self._resolver.resolve_before(selector)]
        beside = self._resolver.edges.beside
        return [(place, beside.consumers(place.tensor)) for place in self._resolver.resolve(selector)]

    def site(self, place: Place, consumers: set[Consumer] | None = None, position: str = "after") -> Site:
        """The site at a place, for some of the tensor's consumers (None: for all). SiteError if no block can be put
        there.
        """
        tensor, index = place.tensor, self.index
        verb = "leaves" if position == "after" else "enters"
        what = f"{tensor!r}" if place.path is None else f"{tensor!r}, which {verb} {place.path},"
        made = index.producer.get(tensor)
        if index.is_constant(tensor) or (made is not None and made not in index.active):
            raise SiteError(f"{what} is a constant (a weight), not an activation; a block goes behind an activation")
        kind, shape = self.shapes.lookup(tensor)
        dtype = float_dtype(kind)
        if dtype is None and quantisation.holds_integers(index, tensor):
            shaped = self._resolver.shaped
            raise SiteError(f"{what} {quantised_sites.integers(index, tensor, kind, self.is_map, shaped)}")
        if kind and dtype is None:
            held = TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else f"type {kind}"
            raise SiteError(f"{what} holds {held} values; a block needs a float tensor")
        if shape is None or dtype is None:
            raise SiteError(
                f"the shape of {what} is not in the model and could not be inferred; a block needs to know it"
            )
        if len(shape) != 4:
            raise SiteError(
                f"{what} has the shape {shape_text(shape)}; a block needs [N, C, H, W]{self._maps_behind(tensor)}"
            )
        if not isinstance(shape[1], int):
            raise SiteError(f"the number of channels of {what} is not fixed in the model; a block needs to know it")
        if not self._is_of_the_image(shape):
            raise SiteError(
                f"{what} has the shape {shape_text(shape)}, which is no map of the image "
                f"{shape_text(self._image or ())}: it is an intermediate result of a head or of an attention"
                f"{self._maps_behind(tensor)}"
            )
        path = self._path_of(tensor) if place.path is None and position == "after" else place.path
        module = self.tree.modules.get(path) if path else None
        everyone = self._resolver.edges.beside.consumers(tensor)
        chosen = everyone if consumers is None else consumers
        return Site(
            tensor=tensor,
            shape=shape,
            dtype=dtype,
            path=module.display if module else None,
            type=place.type or (module.type if module else None),
            stride=self._stride(tensor, shape),
            consumers=tuple(index.label(p) for p in index.consumers.get(tensor, ()) if NodeConsumer(p) in chosen),
            graph_output=OutputConsumer(tensor) in chosen,
            warnings=tuple(self._warnings(tensor)),
            position=position,
            others=tuple(map(self._label, in_order(everyone - chosen))),
            rewired=frozenset(chosen),
        )

    def _label(self, consumer: Consumer) -> str:
        if isinstance(consumer, NodeConsumer):
            return self.index.label(consumer.node_index)
        return f"output:{consumer.name}"

    def _against(self, place: Place) -> str | None:
        """Why no block can be put at a place."""
        try:
            self.site(place)
        except SiteError as error:
            return str(error)
        return None

    def listing(self) -> list[Site]:
        """One site for every module that a single image-like tensor leaves, in the order of the model."""
        found = []
        for path in self.tree.modules:
            tensor = self._resolver.edges.leaving(path)
            if tensor and self.is_map(tensor):
                found.append(self.site(Place(tensor, path)))
        return found

    def tensors(self) -> list[Site]:
        """One site for every image-like activation, for models whose nodes carry no module paths."""
        index = self.index
        names = [name for p in sorted(index.active) for name in index.nodes[p].output if self.is_map(name)]
        return [self.site(Place(name)) for name in names]

    def _path_of(self, tensor: str) -> str | None:
        """The largest module that this tensor alone leaves; else the module of the node that makes it."""
        position = self.index.producer.get(tensor)
        if position is None or not (innermost := self.tree.of_node[position]):
            return None
        tokens = innermost.split(".")
        for count in range(1, len(tokens)):
            path = ".".join(tokens[:count])
            if self._resolver.edges.leaving(path) == tensor:
                return path
        return innermost

    def _stride(self, tensor: str, shape: tuple[Dimension, ...]) -> int | None:
        """How often the map goes into the image, the same in height and width; None where it is no map of the image.

        Where the sizes do not tell, being dynamic or rounded, the operators on the way do.
        """
        if self._image is not None:
            strides = {_times(whole, part) for whole, part in zip(self._image[2:], shape[2:], strict=True)}
            if len(strides) == 1 and (stride := strides.pop()):
                return stride
        return self.blocks.stride(tensor)  # looks at the whole model

    @cached_property
    def _image(self) -> tuple[Dimension, ...] | None:
        """The shape of the first input that is an image."""
        for name in self.index.inputs:
            shape = self.shapes.lookup(name)[1] if name not in self.index.initializers else None
            if shape is not None and len(shape) == 4:
                return channels_first(shape)
        return None

    def _is_of_the_image(self, shape: tuple[Dimension, ...]) -> bool:
        """False for [1, 16, 4, 8400] and the like: tokens or boxes, whose two last sizes are not height and width.

        A map is as many times smaller than the image in height as in width, but for rounding; one that is pooled
        along one of them has a size of 1 there.
        """
        sizes = [*(self._image or ())[2:], *shape[2:]]
        if len(sizes) != 4 or not all(isinstance(size, int) and size > 0 for size in sizes) or 1 in shape[2:]:
            return True
        tall, wide, height, width = (size for size in sizes if isinstance(size, int))
        ratio = (tall / height) / (wide / width)
        return 1 / _MOST_UNEVEN <= ratio <= _MOST_UNEVEN

    def is_map(self, tensor: str) -> bool:
        """Whether a tensor is known to be a float map [N, C, H, W] of the image."""
        return self.shapes.is_feature_map(tensor) and self._is_of_the_image(self.shapes.lookup(tensor)[1] or ())

    def _maps_behind(self, tensor: str) -> str:
        """The end of a sentence that names the nearest maps which a tensor is made from."""
        found, pending, seen = dict[str, None](), [tensor], {tensor}
        while pending and len(seen) < _FAR:
            position = self.index.producer.get(pending.pop(0))
            for name in sorted(self.index.reads(position)) if position in self.index.active else ():
                if name in seen or self.index.is_constant(name):
                    continue
                seen.add(name)
                if self.is_map(name):
                    found[name] = None
                else:
                    pending.append(name)
        names = [self._resolver.shaped(f"tensor:{name}", name) for name in found]
        return f"; the nearest maps that it is made from are {listed(names, 4)}" if names else ""

    def _warnings(self, tensor: str) -> Iterable[str]:
        if quantised := quantised_sites.in_front(self.index, tensor):
            yield quantised
        position = self.index.producer.get(tensor)
        if position is not None and self.index.nodes[position].op_type in _SUSPICIOUS:
            from ..recognition.advice import objection  # looks at the whole model: only where there may be a reason

            if found := objection(self.blocks, tensor):
                yield found


def _times(whole: Dimension, part: Dimension) -> int | None:
    """How often one size goes into another, where both are known and it does."""
    if not isinstance(whole, int) or not isinstance(part, int) or not part or whole % part:
        return None
    return whole // part
