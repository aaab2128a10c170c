"""Block: the base class of everything that can be inserted, and the registry that finds the installed ones.

A block is one file with one subclass. It states its paper, formula, hyper-parameters and weights, and emits its
template in one or more lowerings. The engine knows no block by name: it looks them up in the packages that the
entry-point group ``graphsurgery.patterns`` names, its own catalogue among them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import isabstract
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from . import catalogue
from .errors import BlockError, MissingDependency
from .featuremap import FeatureMap
from .selection.nearby import nearest_titles
from .setting import Setting as Setting
from .template import Template
from .yardstick import PYTORCH, Yardstick

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]
ENTRY_POINTS = "graphsurgery.patterns"
SATURATED = 40.0
"""Its sigmoid is exactly 1 in every element type; float64 needs 37 for that, float32 17."""


class Block(ABC):
    """An attention block. Subclasses are registered by lying in a package of the entry-point group."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    reference: ClassVar[str]
    """the code whose function this is"""
    formula: ClassVar[str]
    untrained: ClassVar[str]
    """what a block fresh from its initialisation does to the scale of x, in words"""
    demand: ClassVar[int] = 100
    """place in the order of how often people ask for the block, 1 first; the table of blocks is in this order"""
    variants: ClassVar[Mapping[str, str]] = {}
    """variant -> one line; the first is what the bare name means"""
    settings: ClassVar[Sequence[Setting]] = ()
    redrawn: ClassVar[bool] = True
    """whether parity compares a fresh block with other weights, too (see parity/drawn.py)"""
    aliases: ClassVar[Sequence[tuple[str, str]]] = ()
    """(regular expression for a whole key found in the field, official key as a replacement template)"""

    def __init__(self, variant: str | None = None, **values: object) -> None:
        if variant is not None and variant not in self.variants:
            known = f"has the variants {', '.join(self.variants)}" if self.variants else "has no variants"
            raise BlockError(f"{self.name} has no variant {variant!r}; it {known}")
        self.variant = variant or next(iter(self.variants), None)
        known_settings = {
            setting.name: setting for setting in self.settings if self.variant in (setting.variants or (self.variant,))
        }
        for key in values:
            if key not in known_settings:
                known = f"the known ones are {', '.join(known_settings)}" if known_settings else "it has none"
                raise BlockError(f"{self.spelled} has no hyper-parameter {key!r}; {known}")
        self.values: dict[str, int | float | bool | None] = {
            key: setting.read(values.get(key, setting.default), self.name) for key, setting in known_settings.items()
        }
        """hyper-parameters in force, by name"""

    @property
    def spelled(self) -> str:
        """The block as a user names it: ``ge[theta-minus]``."""
        return f"{self.name}[{self.variant}]" if self.variant else self.name

    @property
    def has_weights(self) -> bool:
        """Whether the block, in its variant, has parameters."""
        return bool(self.parameters(FeatureMap(1024, 8, 8)))

    @property
    def has_epsilon(self) -> bool:
        """Whether the epsilon of its BatchNorms is a hyper-parameter, ``bn_eps``."""
        return "bn_eps" in self.values

    def with_values(self, **values: object) -> Block:
        """The same block with other hyper-parameters."""
        return type(self)(self.variant, **{**self.values, **values})

    def hyper_parameters(self) -> Sequence[Setting]:
        """What ``--set`` takes, in whatever variant."""
        return self.settings

    # ------------------------------------------------------------------ what a subclass states

    def example(self) -> FeatureMap:
        """The feature map that tables of blocks describe it on."""
        return FeatureMap(256, 20, 20, batch=1)

    def check(self, feature: FeatureMap) -> None:  # noqa: B027 - most blocks work everywhere
        """Raise BlockError where the block cannot work. Called before anything is emitted."""

    def warnings(self, feature: FeatureMap) -> list[str]:
        """Settings that work and are probably not what is meant."""
        return []

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        """Official key -> shape of every parameter and buffer of the PyTorch module that the function depends on.

        In the order of the layers, each BatchNorm behind the layer that it normalises: an exporter folds it into that.
        """
        return {}

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        """The module's own initialisation."""
        return {}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        """Parameters with which the block gives x back bit by bit. BlockError where there are none."""
        raise BlockError(f"{self.spelled} has no setting that leaves its input as it is; use --gate residual instead")

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        """Hyper-parameters that follow from the shapes of given weights (official keys), a hidden width say."""
        return {}

    def regrouped(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Given weights with parts that another implementation keeps apart joined: a q, k and v of their own, say.

        Called before keys are looked up; leaves out what follows from the hyper-parameters.
        """
        return arrays

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """The formulations that can be emitted here, the one with the fewest demands last."""
        return ("default",)

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        """The formulation to use on the template's target, out of those that can be emitted."""
        return lowerings[0]

    @abstractmethod
    def emit(self, t: Template, lowering: str) -> gs.Variable:
        """Write the block behind ``t.x`` and return its output, shaped like ``t.x``."""

    @abstractmethod
    def module(self, feature: FeatureMap) -> torch.nn.Module:
        """The PyTorch module with the same parameters and the same function, freshly initialised. Imports torch."""

    def compared_with(self, feature: FeatureMap) -> Yardstick:
        """What ``module`` is, in words."""
        return PYTORCH

    # ------------------------------------------------------------------ keys

    def official_key(self, key: str) -> str:
        """The official name of a key found in the field; the key itself where no alias fits."""
        for pattern, official in self.aliases:
            if re.fullmatch(pattern, key):
                return re.sub(pattern, official, key)
        return key


def uniform_fan_in(rng: np.random.Generator, shape: Sequence[int], fan_in: int) -> Array:
    """torch's default for convolutions and linear layers: uniform within 1 / sqrt(fan_in)."""
    bound = 1.0 / np.sqrt(fan_in)
    return rng.uniform(-bound, bound, size=tuple(shape)).astype(np.float32)


def layer_values(rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """torch's default for all convolutions and linear layers in ``shapes``: a bias has the fan-in of its weight."""
    fan_in = {key.removesuffix("weight"): int(np.prod(shape[1:])) for key, shape in shapes.items() if len(shape) > 1}
    return {key: uniform_fan_in(rng, shape, fan_in[key[: key.rfind(".") + 1]]) for key, shape in shapes.items()}


def bn_shapes(prefix: str, count: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of an evaluated BatchNorm over ``count`` channels."""
    return {f"{prefix}.{part}": (count,) for part in ("weight", "bias", "running_mean", "running_var")}


def bn_values(prefix: str, count: int, weight: float = 1.0, bias: float = 0.0) -> dict[str, Array]:
    """A fresh BatchNorm: running mean 0, running variance 1."""
    values = {"weight": weight, "bias": bias, "running_mean": 0.0, "running_var": 1.0}
    return {f"{prefix}.{part}": np.full(count, value, np.float32) for part, value in values.items()}


# ---------------------------------------------------------------------- the registry


@cache
def block_class(name: str) -> type[Block]:
    """The block of that name. BlockError, with the nearest names, if none is installed or two are; MissingDependency if
    it may be in a package that lacks another one.
    """
    if (found := _in_its_own_file(name)) is not None:
        return found
    registry = _registry()
    if name in registry.blocks:
        _tell()
        return registry.blocks[name]
    if name in registry.disputed:
        raise BlockError(registry.disputed[name])
    lost = "; ".join(map(str, registry.broken))
    near = nearest_titles(name, {each: block.title for each, block in registry.blocks.items()})
    if lost and not near:
        lacks = any(each.lacks for each in registry.broken)
        kind = MissingDependency if lacks else BlockError
        raise kind(f"there is no block {name!r} among those that can be loaded; {lost}")
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(registry.blocks)}"
    raise BlockError(f"there is no block {name!r}; {hint}{f' ({lost})' if lost else ''}")


def make_block(spelled: str, settings: Mapping[str, object] | None = None) -> Block:
    """The block that a user names with its hyper-parameters. BlockError if there is no such thing.

    ``simam`` or ``ge[theta]`` is one of the catalogue, ``./myblock.onnx`` and ``mypkg.blocks:MyAttention`` are the
    user's own (see userblock).
    """
    from . import userblock

    own = userblock.make(spelled, settings or {})
    if own is not None:
        return own
    match = re.fullmatch(r"\s*([^\[\]\s]+)\s*(?:\[([^\[\]]+)\])?\s*", spelled)
    if match is None:
        raise BlockError(f"{spelled!r} is not a block's name; write it as in simam or 'ge[theta]'")
    name, variant = match.groups()
    return block_class(name)(variant, **dict(settings or {}))


def _in_its_own_file(name: str) -> type[Block] | None:
    """The block of that name from the file of that name, so that one insertion need not load the whole catalogue; None
    where there is no such file, and where there are several catalogues, which have to be held against each other.
    """
    module = catalogue.module_of_the_only(ENTRY_POINTS, name)
    return next((block for block in _blocks_in(module) if getattr(block, "name", "") == name), None) if module else None


def all_blocks() -> dict[str, type[Block]]:
    """Every installed block by name, in alphabetical order.

    An entry point names a module with Block subclasses in it, or a package whose modules have them.
    GraphSurgeryWarning, once, for a package that cannot be loaded, and for a name that several blocks have; then none
    of them is among these.
    """
    _tell()
    return dict(_registry().blocks)


@dataclass(frozen=True)
class _Registry:
    blocks: dict[str, type[Block]]
    disputed: dict[str, str]
    """name of a block that several packages bring -> what to say of it"""
    broken: tuple[catalogue.Broken, ...]


@cache
def _registry() -> _Registry:
    catalogues = catalogue.loaded(ENTRY_POINTS)
    broken = list(catalogues.broken)
    offers: dict[str, dict[type[Block], str]] = {}
    for package, module in catalogues.modules:
        for block in _blocks_in(module):
            if fault := _fault(block):
                broken.append(catalogue.Broken(f"{module.__name__}.{block.__name__}", package, fault))
            elif hasattr(block, "name"):
                offers.setdefault(block.name, {})[block] = f"{package} ({module.__name__})"
    blocks = {name: next(iter(offered)) for name, offered in sorted(offers.items()) if len(offered) == 1}
    disputed = {
        name: f"there are {len(offered)} blocks called {name!r}, from {' and '.join(offered.values())}; uninstall one"
        for name, offered in offers.items()
        if len(offered) > 1
    }
    return _Registry(blocks, disputed, tuple(broken))


def _blocks_in(module: ModuleType) -> Iterator[type[Block]]:
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Block) and value.__module__ == module.__name__:
            yield value


def _fault(block: type[Block]) -> str:
    """Why a class is no block; "" for a block, and for what is only meant as a base of blocks."""
    if not hasattr(block, "name"):
        return "" if isabstract(block) else "it has no name"
    return f"it has no {' and no '.join(sorted(block.__abstractmethods__))}" if isabstract(block) else ""


@cache
def _tell() -> None:
    """Warn, once, of what is wrong with the installed packages."""
    registry = _registry()
    catalogue.tell([*map(str, registry.broken), *registry.disputed.values()])


def forget() -> None:
    """Look at the installed packages again when a block is next asked for."""
    for each in (block_class, _registry, _tell):
        each.cache_clear()
