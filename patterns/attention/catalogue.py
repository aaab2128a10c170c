"""CatalogueBlock: what the blocks of the catalogue have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from math import prod
from typing import ClassVar

from graphsurgery.blocks import Array, Block, FeatureMap, Module, Setting, Template

from .widths import require_hidden

_MANY_PARAMETERS = 10e6


def bn_eps(layers: str = "BatchNorms", variants: tuple[str, ...] | None = None) -> Setting:
    """The hyper-parameter for the epsilon of a block's BatchNorms; ``layers``: what its description calls them."""
    doc = f"epsilon of the {layers}; models trained with Ultralytics have 1e-3"
    return Setting("bn_eps", float, 1e-5, doc, above=0, variants=variants)


class CatalogueBlock(Block):
    """A block whose PyTorch module lies in ``modules/``, in the file that is named after the block."""

    module_classes: ClassVar[Mapping[str, str]] = {}
    """variant -> class of its module; that of the block's class where it is not among these"""

    def hidden(self, feature: FeatureMap) -> int:
        """Hidden channels: the setting ``hidden``, or else what the block has by default."""
        return self.integer("hidden") or self.default_hidden(feature)

    def default_hidden(self, feature: FeatureMap) -> int:
        """Hidden channels where they are not given: the channels over the ``reduction``, rounded down."""
        return feature.channels // self.integer("reduction")

    def check(self, feature: FeatureMap) -> None:
        if "reduction" in self.values:
            require_hidden(self.hidden(feature), self.values["reduction"], feature)

    def many_parameters(self, feature: FeatureMap, name: str, hint: str = "") -> list[str]:
        """The warning of a block that has many; ``hint``: what has fewer."""
        count = sum(prod(shape) for shape in self.parameters(feature).values())
        if count < _MANY_PARAMETERS:
            return []
        return [f"{name} has {count / 1e6:.1f} million parameters at {feature.channels} channels{hint}"]

    def with_biases(self, feature: FeatureMap, biases: Mapping[str, float]) -> dict[str, Array]:
        """Initial weights, but for layers (prefix -> number) whose weight is 0 and whose bias is that number."""
        weights = {f"{layer}.weight": 0.0 for layer in biases}
        return self.with_constants(feature, weights | {f"{layer}.bias": number for layer, number in biases.items()})

    def choose(self, t: Template, lowerings: Sequence[str]) -> str:
        """The last lowering for onnxruntime, the first for every other target."""
        return lowerings[-1] if t.target == "onnxruntime" else lowerings[0]

    def arguments(self, feature: FeatureMap) -> dict[str, object]:
        """Arguments of the module's constructor beyond those that ``module`` finds by their names."""
        return {}

    def module(self, feature: FeatureMap) -> Module:
        """The module, with what its constructor has parameters for: ``channels``, ``size`` (of a static site),
        ``variant``, ``hidden``, hyper-parameters of the same name, and ``arguments``.
        """
        known: dict[str, object] = {"channels": feature.channels, "variant": self.variant, **self.values}
        if feature.static:
            known["size"] = feature.size
        if "hidden" in self.values:
            known["hidden"] = self.hidden(feature)
        known |= self.arguments(feature)
        file = import_module(f"..modules.{self.name}", __package__)
        constructor = getattr(file, self.module_classes.get(str(self.variant), type(self).__name__))
        module: Module = constructor(**{key: known[key] for key in signature(constructor).parameters if key in known})
        return module
