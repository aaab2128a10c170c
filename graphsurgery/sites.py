"""Sites: places to insert a block, found by selectors or listed for a whole model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import permutations
from typing import Any

from onnx import TensorProto

from .errors import SiteError
from .featuremap import Dimension, FeatureMap, float_dtype
from .graphindex import GraphIndex
from .modelfile import ModelFile
from .modulepath import ModuleTree
from .selectors import Place, Resolver
from .shapes import ShapeTable

_ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Clip", "HardSwish", "HardSigmoid", "Mish", "Gelu"}
    | {"Sigmoid", "Softplus", "Tanh", "ThresholdedRelu", "Swish"}
)
_IN_GATES = frozenset(
    {"Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Erf", "Clip", "Relu", "Add", "Mul", "Div", "Exp", "Log"}
)
_LONGEST_GATE = 4  # nodes between a tensor and its product with them: Div, Erf, Add, Mul in a GELU


@dataclass(frozen=True)
class Site:
    """One place to insert: a tensor [N, C, H, W] and the nodes that read it."""

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
    graph_output: bool
    warnings: tuple[str, ...] = ()

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
    def _resolver(self) -> Resolver:
        return Resolver(self.index, self.tree, self.shapes)

    def find(self, selectors: Iterable[str]) -> list[Site]:
        """The sites that the selectors name, each tensor once. SelectorError or SiteError if one of them names none."""
        sites: dict[str, Site] = {}
        for selector in selectors:
            for place in self._resolver.resolve(selector):
                sites.setdefault(place.tensor, self.site(place))
        return list(sites.values())

    def site(self, place: Place) -> Site:
        """The site at a place. SiteError if no block can be put there."""
        tensor, index = place.tensor, self.index
        what = f"{tensor!r}" if place.path is None else f"{tensor!r}, which leaves {place.path},"
        if index.is_constant(tensor):
            raise SiteError(f"{what} is a constant (a weight), not an activation; a block goes behind an activation")
        kind, shape = self.shapes.lookup(tensor)
        dtype = float_dtype(kind)
        if kind and dtype is None:
            held = TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else f"type {kind}"
            raise SiteError(f"{what} holds {held} values; a block needs a float tensor")
        if shape is None or dtype is None:
            raise SiteError(
                f"the shape of {what} is not in the model and could not be inferred; a block needs to know it"
            )
        if len(shape) != 4:
            sizes = ", ".join(str(d if d is not None else "?") for d in shape)
            raise SiteError(f"{what} has the shape [{sizes}]; a block needs [N, C, H, W]")
        if not isinstance(shape[1], int):
            raise SiteError(f"the number of channels of {what} is not fixed in the model; a block needs to know it")
        path = place.path if place.path is not None else self._path_of(tensor)
        module = self.tree.modules.get(path) if path else None
        return Site(
            tensor=tensor,
            shape=shape,
            dtype=dtype,
            path=module.display if module else None,
            type=module.type if module else None,
            stride=self._stride(shape),
            consumers=tuple(index.label(position) for position in index.consumers.get(tensor, ())),
            graph_output=tensor in index.outputs,
            warnings=tuple(self._warnings(tensor)),
        )

    def listing(self) -> list[Site]:
        """One site for every module that a single image-like tensor leaves, in the order of the model."""
        found = []
        for path in self.tree.modules:
            tensor = self._resolver.leaving(path, strict=False)
            if tensor and self.shapes.is_feature_map(tensor):
                found.append(self.site(Place(tensor, path)))
        return found

    def tensors(self) -> list[Site]:
        """One site for every image-like activation, for models whose nodes carry no module paths."""
        index = self.index
        names = [
            name for p in sorted(index.active) for name in index.nodes[p].output if self.shapes.is_feature_map(name)
        ]
        return [self.site(Place(name)) for name in names]

    def _path_of(self, tensor: str) -> str | None:
        """The largest module that this tensor alone leaves; else the module of the node that makes it."""
        position = self.index.producer.get(tensor)
        if position is None or not (innermost := self.tree.of_node[position]):
            return None
        tokens = innermost.split(".")
        for count in range(1, len(tokens)):
            path = ".".join(tokens[:count])
            if self._resolver.leaving(path, strict=False) == tensor:
                return path
        return innermost

    def _stride(self, shape: tuple[Dimension, ...]) -> int | None:
        """How often the map goes into the image, the same in height and width; None where it is no map of the image."""
        for name in self.index.inputs:
            image = self.shapes.lookup(name)[1] if name not in self.index.initializers else None
            if image is not None and len(image) == 4:
                strides = {_times(whole, part) for whole, part in zip(image[2:], shape[2:], strict=True)}
                return strides.pop() if len(strides) == 1 else None
        return None

    def _warnings(self, tensor: str) -> Iterable[str]:
        position = self.index.producer.get(tensor)
        if position is None or self.index.nodes[position].op_type not in ("Conv", "BatchNormalization"):
            return
        activated = self._activation_of(tensor)
        if activated:
            path = self._path_of(activated)
            better = self.tree.modules[path].display if path else f"tensor:{activated}"
            yield (
                f"this is between a convolution and its activation, where it keeps TensorRT from fusing the two; "
                f"use {better} to insert behind the activation"
            )

    def _activation_of(self, tensor: str) -> str | None:
        """The activated tensor, if all that reads this one is its activation: one node, or a gate and its product."""
        index, readers = self.index, self.index.consumers.get(tensor, [])
        if tensor in index.outputs:
            return None
        if len(readers) == 1 and index.nodes[readers[0]].op_type in _ACTIVATIONS:
            return self._output(readers[0])
        for gate, product in permutations(readers) if len(readers) == 2 else ():
            if index.nodes[product].op_type == "Mul" and self._leads_to(gate, product):
                return self._scaled(self._output(product))
        return None

    def _leads_to(self, gate: int, product: int) -> bool:
        """Whether a node is the first of a chain of elementwise ones that ends in the product."""
        for _ in range(_LONGEST_GATE):
            readers = self.index.consumers.get(self._output(gate), [])
            if self.index.nodes[gate].op_type not in _IN_GATES or len(readers) != 1:
                return False
            if readers[0] == product:
                return True
            gate = readers[0]
        return False

    def _scaled(self, tensor: str) -> str:
        """The tensor after a constant factor that follows it: the 1/6 of a HardSwish, the 1/2 of a GELU."""
        readers = self.index.consumers.get(tensor, [])
        if len(readers) != 1 or tensor in self.index.outputs:
            return tensor
        node = self.index.nodes[readers[0]]
        constant = [self.index.is_constant(name) for name in node.input if name != tensor]
        return self._output(readers[0]) if node.op_type in ("Mul", "Div") and constant == [True] else tensor

    def _output(self, position: int) -> str:
        """The first output of a node; "" for a node without any, which is not valid but can be in a file."""
        outputs = self.index.nodes[position].output
        return str(outputs[0]) if outputs else ""


def _times(whole: Dimension, part: Dimension) -> int | None:
    """How often one size goes into another, where both are known and it does."""
    if not isinstance(whole, int) or not isinstance(part, int) or not part or whole % part:
        return None
    return whole // part
