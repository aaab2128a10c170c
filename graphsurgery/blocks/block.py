"""Block: the base class of everything that can be inserted.

A block is one file with one subclass. It states its paper, formula, hyper-parameters and weights, and writes its
template in one or more lowerings.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from ..errors import BlockError, option
from ..feature_map import FeatureMap
from ..messages import closest, megabytes
from ..template.template import Template
from .initial_weights import Array as Array
from .initial_weights import torch_default
from .reference import PYTORCH, Reference
from .setting import Setting as Setting
from .setting import Value

if TYPE_CHECKING:
    from torch.nn import Module as Module
else:
    Module = Any

_MANY_PAIRS = 1600**2
"""of all positions of 40 x 40, P4 of an image of 640: detectors have attention over all pairs at P5, of 400"""


class Block(ABC):
    """An attention block. Subclasses are registered by lying in a package of the entry-point group."""

    name: str
    title: str
    paper: ClassVar[str]
    reference: str
    """the code whose function this is"""
    formula: ClassVar[str]
    untrained: ClassVar[str]
    """what a block fresh from its initialisation does to the scale of x, in words"""
    demand: ClassVar[float] = 100
    """how soon the block comes in tables: those first that people ask for most. Blocks of one demand come by name, so a
    new one takes that of a block that is asked for as much"""
    variants: ClassVar[Mapping[str, str]] = {}
    """variant -> one line; the first is what the bare name means"""
    formerly: ClassVar[str] = ""
    """the variant that the bare name meant before it meant the first one"""
    settings: ClassVar[Sequence[Setting]] = ()
    quadratic: ClassVar[bool | Sequence[str]] = False
    """whether it computes scores whose number grows with the square of the number of positions, in all variants or in
    these; :meth:`scores` says how many"""
    redrawn: ClassVar[bool] = True
    """whether parity compares a fresh block with other weights, too (see verification/random_weights.py)"""
    rewritten: ClassVar[bool] = True
    """whether parity may write its template anew, to see what it should consist of (see verification/exercise.py)"""
    identity_learns: ClassVar[bool | Sequence[str]] = False
    """whether training can go on from ``identity``, in all variants or in these: a saturated gate has no gradient"""
    remarks: ClassVar[Sequence[str]] = ()
    """where the authors' code, the paper and the ports differ, and which of them this block follows"""
    named: bool = False
    """whether the variant was asked for by its name, rather than being what the bare name means"""
    aliases: ClassVar[Sequence[tuple[str, str]]] = ()
    """(regular expression for a whole key found in the field, official key as a replacement template)"""

    def __init__(self, variant: str | None = None, **values: object) -> None:
        if variant is not None and variant not in self.variants:
            known = f"has the variants {', '.join(self.variants)}" if self.variants else "has no variants"
            candidates = [f"{self.name}[{each}]" for each in self.variants] or [self.name]
            raise BlockError(
                f"{self.name} has no variant {variant!r}; it {known}", option="module", candidates=candidates
            )
        self.variant = variant or next(iter(self.variants), None)
        self.named = variant is not None
        known_settings = {setting.name: setting for setting in self.settings if setting.belongs_to(self.variant)}
        for key in values:
            if key not in known_settings:
                known = f"the known ones are {', '.join(known_settings)}" if known_settings else "it has none"
                near = closest(key, known_settings) or list(known_settings)
                message = f"{self.spelled} has no hyper-parameter {key!r}; {known}"
                raise BlockError(message, option="settings", candidates=near)
        self.values: dict[str, Value] = {
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
    def learns_from_identity(self) -> bool:
        """Whether training can go on from :meth:`identity`."""
        own = self.identity_learns
        return own if isinstance(own, bool) else self.variant in own

    @property
    def is_quadratic(self) -> bool:
        """Whether its scores grow with the square of the number of positions."""
        own = self.quadratic
        return own if isinstance(own, bool) else self.variant in own

    @property
    def has_epsilon(self) -> bool:
        """Whether the epsilon of its BatchNorms is a hyper-parameter, ``bn_eps``."""
        return "bn_eps" in self.values

    def integer(self, name: str) -> int:
        """A hyper-parameter as a whole number; 0 where it has no value, or the variant does not have it."""
        return int(self.values.get(name) or 0)

    def number(self, name: str) -> float:
        """A hyper-parameter as a number; 0 likewise."""
        return float(self.values.get(name) or 0)

    def flag(self, name: str) -> bool:
        """A hyper-parameter as true or false; false likewise."""
        return bool(self.values.get(name))

    def text(self, name: str) -> str:
        """A hyper-parameter as text; "" likewise."""
        return str(self.values.get(name) or "")

    def recorded_values(self) -> dict[str, Value]:
        """The hyper-parameters that a record holds; what came later only where it is not the default."""
        later = {each.name: each.default for each in self.settings if each.came_later(self.variant)}
        return {name: value for name, value in self.values.items() if name not in later or value != later[name]}

    def with_values(self, **values: object) -> Block:
        """The same block with other hyper-parameters."""
        other = type(self)(self.variant, **{**self.values, **values})
        other.named = self.named
        return other

    def hyper_parameters(self) -> Sequence[Setting]:
        """What ``--set`` takes, in whatever variant."""
        return self.settings

    # ------------------------------------------------------------------ what a subclass states

    def example(self) -> FeatureMap:
        """The feature map that tables of blocks describe it on."""
        return FeatureMap(256, 20, 20, batch=1)

    def check(self, feature: FeatureMap) -> None:  # noqa: B027 - most blocks work everywhere
        """Raise BlockError where the block cannot work. Called before anything is written."""

    def warnings(self, feature: FeatureMap) -> list[str]:
        """Settings that work and are probably not what is meant."""
        return []

    def scores(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the scores of one head on a map of this size: how many positions attend to how many."""
        return height * width, height * width

    def cost(self, feature: FeatureMap) -> str:
        """What its scores take; "" where they do not grow with the square of the map, or the size is not known."""
        if not self.is_quadratic or feature.height is None or feature.width is None:
            return ""
        rows, columns = self.scores(feature.height, feature.width)
        place = f"{feature.height * feature.width:,} positions ({feature.height} x {feature.width})"
        matrix = f"{rows:,} x {columns:,}, {megabytes(4 * rows * columns)} in float32"
        return f"{self.spelled} attends over {place}: the score matrix of each head is {matrix}"

    def cost_warning(self, feature: FeatureMap) -> str:
        """The same where they are many; "" where they are not."""
        said = self.cost(feature)
        return said if said and prod(self.scores(*feature.size)) >= _MANY_PAIRS else ""

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        """The parameters and buffers of the PyTorch module that the function depends on.

        Returns
        -------
        dict[str, tuple[int, ...]]
            Official key -> shape, in the order of the layers, each BatchNorm after the layer that it normalises: an
            exporter folds it into that.

        Examples
        --------
        >>> block.parameters(FeatureMap(64, 20, 20))
        {'fc.weight': (64, 64, 1, 1), 'fc.bias': (64,)}
        """
        return {}

    def buffers(self, feature: FeatureMap) -> set[str]:
        """The keys of ``parameters`` that are not learned, but set or counted: the statistics of BatchNorms."""
        return {key for key in self.parameters(feature) if key.endswith((".running_mean", ".running_var"))}

    def counts(self, feature: FeatureMap) -> tuple[int, int]:
        """(values that are learned, values that are not) among its weights at a feature map."""
        buffers = self.buffers(feature)
        sizes = {key: prod(shape) for key, shape in self.parameters(feature).items()}
        kept = sum(sizes[key] for key in buffers)
        return sum(sizes.values()) - kept, kept

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        """The module's own initialisation; unless a block has another, that of torch's layers (see torch_default)."""
        try:
            return torch_default(self.parameters(feature), rng)
        except KeyError as missing:
            what = f"{self.spelled} has to say in initial() what its parameters begin with, {missing} for one"
            raise BlockError(what) from None

    def with_constants(self, feature: FeatureMap, constants: Mapping[str, float]) -> dict[str, Array]:
        """Initial weights, but for parameters (key -> number) that have one value throughout: an identity, say."""
        values = self.initial(feature, np.random.default_rng(0))
        return values | {key: np.full_like(values[key], number) for key, number in constants.items()}

    def identity(self, feature: FeatureMap) -> dict[str, Array]:
        """Parameters with which the block gives x back bit by bit. BlockError where there are none."""
        raise self.no_identity("has no setting that leaves its input as it is")

    def no_identity(self, why: str) -> BlockError:
        """The error of ``identity`` where there is none; ``why``: a predicate, of which the block is the subject."""
        return BlockError(f"{self.spelled} {why}; use {option('gate', 'residual')} instead", option="init")

    def settings_from_weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
        """Hyper-parameters that follow from the shapes of given weights (official keys), a hidden width say."""
        return {}

    def regrouped(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Given weights with parts that another implementation keeps apart joined: a q, k and v of their own, say.

        Called before keys are looked up; leaves out what follows from the hyper-parameters.
        """
        return arrays

    def lowerings(self, feature: FeatureMap, opset: int) -> Sequence[str]:
        """The lowerings that can be had here, the one with the fewest demands last."""
        return ("default",)

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        """The lowering for the template's target, out of those that can be had."""
        return lowerings[0]

    @abstractmethod
    def emit(self, t: Template, lowering: str) -> gs.Variable:
        """Write the block.

        Parameters
        ----------
        t:
            The builder; ``t.x`` [N, C, H, W] is the site's tensor, ``t.feature`` describes it.
        lowering:
            One of ``lowerings``.

        Returns
        -------
        gs.Variable
            The output, shaped like ``t.x``.
        """

    @abstractmethod
    def module(self, feature: FeatureMap) -> Module:
        """The PyTorch module with the same parameters and the same function, freshly initialised. Imports torch."""

    def compared_with(self, feature: FeatureMap) -> Reference:
        """What ``module`` is, in words."""
        return PYTORCH

    # ------------------------------------------------------------------ keys

    def official_key(self, key: str) -> str:
        """The official name of a key found in the field; the key itself where no alias fits."""
        for pattern, official in self.aliases:
            if re.fullmatch(pattern, key):
                return re.sub(pattern, official, key)
        return key
