"""Equivalence: how far a wrong version of a block is from the right one, at most, in float64.

Nothing of what `verify` does is used: both blocks are evaluated by evaluation.py, on inputs of every size and either
sign, with the weights in the file, and with random ones of which each parameter and each layer in turn is louder,
softer, none or turned around, so that both sides of every kink and bound are reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import torch

from graphsurgery.errors import ParityFailed
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.record import Insertion
from graphsurgery.template.template import Template
from graphsurgery.userblocks.inserted import block_of
from graphsurgery.verification.cutout import cut_out
from graphsurgery.verification.tolerance import TOLERANCES
from tests.graphsurgery.verification.evaluation import Evaluator

Arrays = dict[str, np.ndarray[Any, Any]]
_SIZES = (1.0, -1.0, 1e-4, 1e-2, 0.1, 30.0, 1e3)
_GAINS = (-1.0, 1e-3, 0.03, 30.0, -30.0, 300.0)
_SEEDS = (1, 2, 3)
_ROUNDED = 4.0
"""An error of float32 can be this much larger than the one of another evaluation in float32."""


@dataclass(frozen=True)
class Apart:
    """How far two functions are from each other."""

    tolerances: float
    """the largest difference, in tolerances of float32 at that element"""
    visible: float
    """the same, in what float32 permits there: the tolerance, and the rounding of the right block on that input"""

    @property
    def equal(self) -> bool:
        """The rounding of float64 apart."""
        return self.tolerances < 1e-4

    def __str__(self) -> str:
        return f"{self.tolerances:.2g} tolerances, {self.visible:.2g} with rounding"


NO_BLOCK = Apart(np.inf, np.inf)


@dataclass
class Right:
    """A right block, with the inputs and weights to compare on, and what it gives for them."""

    model: onnx.ModelProto
    record: Insertion
    _given: list[tuple[Any, Arrays, Any]] = field(default_factory=list)
    """input, weights, output"""

    @cached_property
    def _block(self) -> onnx.ModelProto:
        return cut_out(ModelFile.load(self.model), self.record).model

    @cached_property
    def _narrow(self) -> Evaluator:
        return Evaluator(self._block, torch.float32)

    def difference(self, wrong: onnx.ModelProto) -> Apart:
        """From a wrong version of it. As soon as it is visible, it is not searched for a larger one."""
        try:
            block = cut_out(ModelFile.load(wrong), self.record).model
        except ParityFailed:
            return NO_BLOCK
        if block.graph.input[0].name != self._block.graph.input[0].name:
            return NO_BLOCK
        other = Evaluator(block)
        tolerances = visible = 0.0
        for array, weights, expected in self._cases():
            apart = np.abs(other.run(array, weights) - expected)
            if not np.isfinite(apart).all():
                return NO_BLOCK
            allowed = TOLERANCES["float32"].allowed(expected)
            tolerances = max(tolerances, float((apart / allowed).max()))
            if tolerances > visible:
                rounding = float(np.abs(self._narrow.run(array, weights) - expected).max())
                if np.isfinite(rounding):
                    visible = max(visible, float((apart / (allowed + _ROUNDED * rounding)).max()))
            if visible > _ROUNDED:
                break
        return Apart(tolerances, visible)

    def _cases(self) -> Iterator[tuple[Any, Arrays, Any]]:
        """Evaluated once, as far as they are asked for."""
        yield from self._given
        for array, weights in self._pending:
            expected = self._wide.run(array, weights)
            if np.isfinite(expected).all():
                self._given.append((array, weights, expected))
                yield self._given[-1]

    @cached_property
    def _wide(self) -> Evaluator:
        return Evaluator(self._block)

    @cached_property
    def _pending(self) -> Iterator[tuple[Any, Arrays]]:
        feature = self.record.feature
        rng = np.random.default_rng(5)
        shape = (2, feature.channels, *feature.size)
        noise = rng.standard_normal(shape) + rng.standard_normal((*shape[:2], 1, 1))
        images = [size * noise[:1] for size in _SIZES]
        images += [np.full_like(noise[:1], 0.7), 1.0 + 1e-3 * noise[1:], 0.01 * noise[:1] * (noise[1:] > 2)]
        return (
            (image, weights)
            for number, weights in enumerate(_weights(self.record, ModelFile.load(self.model), self._block))
            for image in (images if number <= len(_SEEDS) else images[:4])
        )


def _weights(record: Insertion, model: ModelFile, block: onnx.ModelProto) -> Iterator[Arrays]:
    """The weights of the block in the file, and random ones, as initializers of a block that its template wrote."""
    yield {}
    held = {tensor.name: tuple(tensor.dims) for tensor in block.graph.initializer}
    keys = sorted(block_of(record).parameters(record.feature))
    if not keys:
        return
    plain, again = _written(record, model, 1, {}), _written(record, model, 2, {})
    changing = {name for name in plain if plain[name].shape == again[name].shape and (plain[name] != again[name]).any()}
    assert all(held.get(name) == plain[name].shape for name in changing), "the template gave its constants other names"
    layers = {layer: [key for key in keys if key.rpartition(".")[0] == layer] for layer in _layers(keys)}
    groups = [keys, *layers.values(), *([key] for key in keys)]
    every = [(seed, {}) for seed in _SEEDS]
    altered = [(1, dict.fromkeys(group, gain)) for group in groups for gain in _GAINS]
    for seed, gains in [*every, *altered]:
        written = _written(record, model, seed, gains)
        yield {name: written[name] for name in changing}


def _layers(keys: list[str]) -> list[str]:
    return list(dict.fromkeys(key.rpartition(".")[0] for key in keys))


def _written(record: Insertion, model: ModelFile, seed: int, gains: Mapping[str, float]) -> Arrays:
    rng = np.random.default_rng(seed)
    block = block_of(record)
    weights = {}
    for key, values in block.initial(record.feature, rng).items():
        noise = rng.standard_normal(values.shape) / np.sqrt(np.prod(values.shape[1:]))
        if key.endswith("running_var"):
            weights[key] = values * rng.uniform(0.5, 2.0, values.shape) * abs(gains.get(key, 1.0)) + 1e-8
        else:
            weights[key] = (values + noise) * gains.get(key, 1.0)
    template = Template(
        record.feature,
        opset=model.opset,
        weight_scope=record.id,
        target=record.target,
        precision=record.precision,
        weights={key: values.astype(np.float32) for key, values in weights.items()},
        x=record.site.tensor,
    )
    subgraph = template.export(block.emit(template, record.lowering), ir_version=8)
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in subgraph.initializers}
