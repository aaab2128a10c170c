"""A block from a PyTorch module of the user's own: built, exported at the site's sizes, and copied."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs

from ..blocks.block import Array, Block
from ..blocks.setting import Setting
from ..blocks.state_dict import load_weights
from ..entry_points import ForeignError, foreign_code
from ..errors import BlockError
from ..feature_map import FeatureMap
from ..messages import brief, one_line
from ..template.template import Template
from .block_graph import split
from .constructor import EPSILON, Constructor
from .importing import NO_TRUST, Trust
from .onnx_block import UserBlock, write_graph

if TYPE_CHECKING:
    import torch


class TorchBlock(UserBlock):
    """The block ``package.module:Class``; ``settings`` are the arguments of the constructor that the user gave.

    ``bn_eps``, unless the constructor has an argument of that name, is set on every BatchNorm2d after it. The module is
    imported when the block is first used, and only where ``trust`` names it: MissingDependency otherwise. Every set of
    weights is an export of its own, which takes seconds.
    """

    formula = "what the module computes"
    untrained = "does what its initialisation says"
    rewritten = False

    def __init__(self, path: str, settings: Mapping[str, object], trust: Trust = NO_TRUST) -> None:
        self.reference = path
        self.title = path.partition(":")[2]
        self.name = self.title.lower()
        self.values: dict[str, Any] = {key: _literal(value) for key, value in settings.items()}
        self._trust = trust

    @property
    def has_weights(self) -> bool:
        return True

    @property
    def has_epsilon(self) -> bool:
        return True

    def hyper_parameters(self) -> Sequence[Setting]:
        return list(self._constructor().settings())

    def with_values(self, **values: object) -> Block:
        return TorchBlock(self.spelled, {**self.values, **values}, self._trust)

    def check(self, feature: FeatureMap) -> None:
        self.module(feature)

    def parameters(self, feature: FeatureMap) -> dict[str, tuple[int, ...]]:
        return {key: tuple(value.shape) for key, value in _floats(self.module(feature)).items()}

    def buffers(self, feature: FeatureMap) -> set[str]:
        learned = {key for key, _ in self.module(feature).named_parameters(remove_duplicate=False)}
        return set(self.parameters(feature)) - learned

    def initial(self, feature: FeatureMap, rng: np.random.Generator) -> dict[str, Array]:
        state = _floats(self._built(feature, int(rng.integers(1 << 31))))
        return {key: np.array(value.detach().double().numpy()) for key, value in state.items()}

    def emit(self, t: Template, lowering: str) -> gs.Variable:
        from .export import exported  # imports torch

        module = self.module(t.feature)
        weights = {key: t.values(key) for key in _floats(module)}
        load_weights(module, weights)
        graph, constants = split(exported(module, t.feature, t.opset, self.spelled), self.spelled)
        owner = _owners(weights, constants)

        def weight(name: str) -> gs.Tensor:
            return t.weight(owner[name]) if name in owner else t.constant(constants[name], name.replace(":", "_"))

        return write_graph(t, graph, weight)

    def regrouped(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        return {key: values for key, values in arrays.items() if values.dtype.kind not in "iub"}

    def module(self, feature: FeatureMap) -> torch.nn.Module:
        return self._built(feature, 0)

    def _constructor(self) -> Constructor:
        return Constructor(self._trust.load(self.spelled), self.spelled)

    def _built(self, feature: FeatureMap, seed: int) -> torch.nn.Module:
        """The module as its constructor makes it from a seed; torch's own generator is left as it was."""
        constructor = self._constructor()
        arguments = constructor.arguments(self.values, feature.channels)
        import torch  # which the module named needs

        try:
            with torch.random.fork_rng(devices=[]), foreign_code():
                torch.manual_seed(seed)
                module: torch.nn.Module = constructor.found(**arguments).eval()
        except ForeignError as error:
            call = ", ".join(f"{key}={brief(value)}" for key, value in arguments.items())
            raise BlockError(f"{self.spelled}({call}) fails: {one_line(error.raised)}") from None
        eps = self.values.get(EPSILON)
        if eps is not None and EPSILON not in arguments:
            for part in module.modules():
                if isinstance(part, torch.nn.BatchNorm2d):
                    part.eps = float(eps)
        module.sharp = True  # type: ignore[assignment]  # so that parity allows for how it multiplies rounding errors
        return module


def _literal(value: object) -> object:
    """A value from a command line as the Python literal that it spells; other text stays text."""
    if not isinstance(value, str):
        return value
    try:
        read = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(value.lower(), value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return read if isinstance(read, bool | int | float | str | list | tuple | None) else value


def _floats(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a block's weights are: counters and index tables are made by the constructor."""
    return {key: value for key, value in module.state_dict().items() if value.is_floating_point()}


def _owners(weights: Mapping[str, Array], constants: Mapping[str, Array]) -> dict[str, str]:
    """Constant of the exported graph -> the parameter that it is, with the same values in the same shape."""
    owners: dict[str, str] = {}
    for name, values in constants.items():
        for key in (name, *weights):
            given = weights.get(key)
            if given is not None and key not in owners.values() and _equal(given, values):
                owners[name] = key
                break
    return owners


def _equal(weight: Array, constant: Array) -> bool:
    return weight.shape == constant.shape and np.array_equal(weight.astype(constant.dtype), constant)
