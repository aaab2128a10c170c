"""Block: the base class of everything that can be inserted.

A block is one file with one subclass. It states its paper, formula, hyper-parameters and weights, and emits its
template in one or more lowerings.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from ..errors import BlockError
from ..feature_map import FeatureMap
from ..template.template import Template
from .reference import PYTORCH, Reference
from .setting import Setting as Setting

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]
SATURATED = 40.0
"""Its sigmoid is exactly 1 in every element type; float64 needs 37 for that, float32 17."""


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
