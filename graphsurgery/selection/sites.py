"""Sites: places to insert a block, found by selectors or listed for a whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from ..errors import ModelError, SiteError
from ..feature_map import Dimension, FeatureMap, float_dtype
from ..graph import validity
from ..graph.module_paths import enclosing, join
from . import quantised_sites
from .branches import Consumer, NodeConsumer, OutputConsumer, in_order
from .consumers import ConsumerChoice
from .context import Context
from .refusals import refusal
from .resolver import Place, Resolver

_SUSPICIOUS = frozenset(
    {"Conv", "BatchNormalization", "Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Erf", "Reshape", "Transpose"}
)
"""operators after which a place can be within a convolution and its activation, or within an attention"""


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
    note: str = field(default="", compare=False, repr=False)
    """what else goes by the name that was asked for"""

    @property
    def label(self) -> str:
        """How messages call the site."""
        return self.path.lstrip("/") if self.path else f"the tensor {self.tensor}"

    @property
    def feature(self) -> FeatureMap:
        """What a block needs to know of this place."""
        batch, channels, height, width = (d if isinstance(d, int) else None for d in self.shape)
        assert channels is not None
        path = join(self.path.split("/")) if self.path else None
        return FeatureMap(channels, height, width, self.dtype, batch, self.label, path)

    def to_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        data = asdict(self)
        del data["position"], data["others"], data["rewired"], data["note"]
        data.update(shape=list(self.shape), consumers=list(self.consumers), warnings=list(self.warnings))
        return data


class SiteFinder(Context):
    """Finds sites in one model."""

    @cached_property
    def _resolver(self) -> Resolver:
        return Resolver(self)

    @cached_property
    def _fault(self) -> str | None:
        """What is wrong with the graph: asked once for the model, however often places are looked for."""
        return validity.fault(self.index)

    def find(self, selectors: Iterable[str], *, position: str = "after", consumers: Sequence[str] = ()) -> list[Site]:
        """The sites after, or before, what selectors name, each once.

        Parameters
        ----------
        selectors:
            Texts such as ``"/model.8"``, ``"C2f[-1]"`` or ``"tensor:NAME"``; docs/selectors.md has the grammar.
        position:
            ``"after"``: at the tensors that leave what is named; ``"before"``: at those that enter it, for the
            consumers in it.
        consumers:
            With ``"after"``, selectors of the consumers that are to read the block; without any, all are.

        Raises
        ------
        SelectorError
            If one of the selectors cannot be read, or names nothing.
        SiteError
            If no block can be put at one of the places.
        ModelError
            If no runtime could run the model: no insertion can make a valid one of it.

        Examples
        --------
        >>> (site,) = SiteFinder(model).find(["/model.8"])  # doctest: +SKIP
        >>> site.tensor, site.shape, site.stride  # doctest: +SKIP
        ('/model.8/cv2/act/Mul_output_0', (1, 256, 20, 20), 32)
        """
        if self._fault is not None:
            raise ModelError(self._fault)
        choice = ConsumerChoice(consumers, self._resolver, self) if consumers else None
        sites: dict[tuple[str, frozenset[Consumer]], Site] = {}
        for selector in selectors:
            for place, chosen in self._resolver.resolve(selector, position):
                if choice:
                    tensor, chosen = choice.at(place.tensor)
                    place = replace(place, tensor=tensor)
                site = self.site(place, chosen, position)
                sites.setdefault((site.tensor, site.rewired), site)
        if choice:
            choice.check()
        return list(sites.values())

    def site(self, place: Place, consumers: set[Consumer] | None = None, position: str = "after") -> Site:
        """The site at a place, for some of the tensor's consumers (None: for all). SiteError if no block can be put
        there.
        """
        tensor, index = place.tensor, self.index
        if error := refusal(self, tensor, place.described(position)):
            marked = place.written.marked(error.message) if place.written else error.message
            raise SiteError(marked, candidates=error.candidates)
        kind, shape = self.shapes.lookup(tensor)
        dtype = float_dtype(kind)
        assert shape is not None
        assert dtype is not None
        path = self._path_of(tensor) if place.path is None and position == "after" else place.path
        module = self.tree.modules.get(path) if path else None
        everyone = self._resolver.borders.branches.consumers(tensor)
        chosen = everyone if consumers is None else consumers
        readers = index.consumers.get(tensor, ())
        return Site(
            tensor=tensor,
            shape=shape,
            dtype=dtype,
            path=module.display if module else None,
            type=place.type or (module.type if module else None),
            stride=self.stride(tensor, shape),
            consumers=tuple(index.label(n) for n in readers if chosen is everyone or NodeConsumer(n) in chosen),
            graph_output=OutputConsumer(tensor) in chosen,
            warnings=tuple(self._warnings(tensor)),
            position=position,
            others=tuple(map(self._label, in_order(everyone - chosen))),
            rewired=frozenset(chosen),
            note=place.note,
        )

    def _label(self, consumer: Consumer) -> str:
        if isinstance(consumer, NodeConsumer):
            return self.index.label(consumer.node_index)
        return f"output:{consumer.name}"

    def listing(self) -> list[Site]:
        """One site for every module that a single image-like tensor leaves, in the order of the model."""
        leaving = {path: self._resolver.borders.leaving(path) for path in self.tree.modules}
        return [self.site(Place(tensor, path)) for path, tensor in leaving.items() if tensor and self.is_map(tensor)]

    def tensors(self) -> list[Site]:
        """One site for every image-like activation, for models whose nodes carry no module paths."""
        return [self.site(Place(name)) for name in self.maps()]

    def _path_of(self, tensor: str) -> str | None:
        """The largest module that this tensor alone leaves; else the module of the node that produces it."""
        node_index = self.index.producer.get(tensor)
        if node_index is None or not (innermost := self.tree.of_node[node_index]):
            return None
        leaving = self._resolver.borders.leaving
        return next((path for path in enclosing(innermost) if leaving(path) == tensor), innermost)

    def _warnings(self, tensor: str) -> Iterator[str]:
        if quantised := quantised_sites.before_quantiser(self.index, tensor):
            yield quantised
        producer = self.index.producing(tensor)
        if producer is not None and producer.op_type in _SUSPICIOUS:
            from ..recognition.advice import objection

            if found := objection(self.blocks, tensor):  # looks at the whole model
                yield found
