"""Sites: places to insert a block, found by selectors or listed for a whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from ..errors import ModelError, SiteError
from ..feature_map import Dimension, FeatureMap, float_dtype
from ..graph import validity
from ..graph.module_paths import enclosing, join
from ..modelfile.model import ModelFile
from ..request import Shapes
from . import quantised_sites
from .branches import Consumer, NodeConsumer, OutputConsumer, in_order
from .consumers import ConsumerChoice
from .context import Context
from .interior import Interior
from .parser import Selector
from .refusals import refusal
from .resolver import Place, Places, Resolver

_SUSPICIOUS = frozenset(
    {"Conv", "BatchNormalization", "Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Erf", "Reshape", "Transpose"}
    | {"Pad", "ReduceMean", "ReduceMax", "Sqrt", "Exp", "Softmax"}
)
"""operators after which a place can be within a convolution and its activation, or within an attention"""
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Clip", "Min", "Max", "Relu"})
"""operators after which it can be within something if only arithmetic follows"""
_POINTWISE = _ARITHMETIC | {"Sigmoid", "HardSigmoid", "Tanh", "Erf", "Exp", "Sqrt", "LeakyRelu", "PRelu", "HardSwish"}


@dataclass(frozen=True, slots=True)
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
    function: tuple[str, ...] | None = None
    """domain, name and overload of the local function that the tensor is in; None: it is in the main graph"""
    written_out: str = field(default="", compare=False, repr=False)
    """what the tensor of a function is called where the calls are written out"""
    note: str = field(default="", compare=False, repr=False)
    """what else goes by the name that was asked for"""

    @property
    def label(self) -> str:
        """How messages call the site."""
        return self.path.lstrip("/") if self.path else f"the tensor {self.tensor}"

    @property
    def readers(self) -> tuple[str, ...]:
        """What is to read the block: nodes, and ``output:NAME``."""
        return (*self.consumers, *([f"output:{self.tensor}"] if self.graph_output else []))

    @property
    def running(self) -> str:
        """What the tensor is called where the model is run for it."""
        return self.written_out or self.tensor

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
        if self.function is None:
            del data["function"]
        del data["position"], data["others"], data["rewired"], data["note"], data["written_out"]
        data.update(shape=list(self.shape), consumers=list(self.consumers), warnings=list(self.warnings))
        return data


class SiteFinder(Context):
    """Finds sites in one model."""

    def __init__(self, model: ModelFile, shapes: Shapes = MappingProxyType({})) -> None:
        super().__init__(model, shapes)
        self.suggestions.try_by(lambda selector, use: self._resolver.try_selector(selector, use))

    @cached_property
    def _resolver(self) -> Resolver:
        return Resolver(self, self._elsewhere if self.model.structure.functions else None)

    @cached_property
    def inside(self) -> SiteFinder | None:
        """The same for the model with its calls of local functions written out; None where it has no calls."""
        blocks = self.blocks.written_out() if self.model.structure.functions else None
        if blocks is None:
            return None
        finder = SiteFinder(blocks.view.index.model, self.shapes.given)
        finder.blocks = blocks
        return finder

    @cached_property
    def interior(self) -> Interior | None:
        """The places within calls of local functions; None where the model has no calls."""
        if self.inside is None:
            return None
        return Interior(self, self._resolver, self.inside, self.inside._resolver)

    def _elsewhere(self, part: Selector, position: str) -> Places:
        """The places of what names nothing in the main graph."""
        return self.interior.places(part, position) if self.interior else []

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
                if place.inner is not None:
                    site = self._within(place, chosen, position, consumers)
                    sites.setdefault((f"{site.function} {site.tensor}", site.rewired), site)
                    continue
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
        if (error := self.refusal(place, position)) is not None:
            raise error
        return self.site_at(place, consumers, position)

    def refusal(self, place: Place, position: str = "after") -> SiteError | None:
        """The error that says why no block can be put at a place; None where one can."""
        with self.suggestions.used("before" if position == "before" else "after"):
            error = refusal(self, place.tensor, lambda: place.described(position))
        if error is None or place.written is None:
            return error
        return SiteError(place.written.marked(error.message), candidates=error.candidates)

    def site_at(self, place: Place, consumers: set[Consumer] | None = None, position: str = "after") -> Site:
        """The site at a place where a block can be put."""
        tensor, index = place.tensor, self.index
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

    def _within(self, place: Place, chosen: set[Consumer], position: str, consumers: Sequence[str]) -> Site:
        """The site at a place in a local function. SiteError if no block can be put there, or for some consumers."""
        assert self.inside is not None
        assert place.inner is not None
        inner, site = place.inner, self.inside.site(replace(place, inner=None), chosen, position)
        if consumers:
            sentence = f"{site.label} is in the local function {inner.function[1]!r}, where consumers cannot be chosen"
            raise SiteError(place.written.marked(sentence) if place.written else sentence)
        return replace(
            site,
            tensor=inner.name,
            consumers=inner.nodes,
            others=inner.others,
            rewired=inner.rewired,
            graph_output=any(isinstance(each, OutputConsumer) for each in inner.rewired),
            function=inner.function,
            written_out=place.tensor,
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
        if quantised := quantised_sites.before_quantiser(self, tensor):
            yield quantised
        if (node := self.layouts.doubtful(tensor)) is not None:
            yield (
                f"whether this is [N, C, H, W] is not known: it comes from a {node.op_type} of the domain "
                f"{node.domain}, which is not ONNX's operator of that name"
            )
        if self._is_suspicious(tensor) and (found := self.adviser.advice(tensor)):  # looks at the whole model
            yield found.sentence

    def _is_suspicious(self, tensor: str) -> bool:
        """Whether operators around a tensor are such as are within something; an output alone is within nothing."""
        index = self.index
        if tensor in index.outputs and not index.consumers.get(tensor):
            return False
        producer, operators = index.producer.get(tensor), index.operators
        if producer is None or operators[producer] in _SUSPICIOUS:
            return True
        behind = [operators[node_index] for node_index in index.consumers.get(tensor, ())]
        return operators[producer] in _ARITHMETIC and bool(behind) and _POINTWISE.issuperset(behind)
