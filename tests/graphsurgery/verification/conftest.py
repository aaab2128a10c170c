"""Small models with a block in them, made by hand, so that these tests do not depend on how blocks are inserted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from onnx import NodeProto, helper, numpy_helper

from graphsurgery.blocks.reference import PYTORCH, Reference
from graphsurgery.feature_map import numpy_dtype
from graphsurgery.insertion.removal import Unchanged
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.verification import comparison, variants

CHANNELS = 4


@dataclass(frozen=True)
class Site:
    path: str
    tensor: str
    shape: tuple[int | str | None, ...]
    dtype: str
    consumers: tuple[str, ...] = ("tail",)
    others: tuple[str, ...] = ()
    position: str = "after"


@dataclass(frozen=True)
class Insertion:
    """What record.Insertion has, as far as parity uses it."""

    id: str
    site: Site
    output_tensor: str
    nodes: tuple[str, ...]
    make_twin: Callable[[], torch.nn.Module]
    function: tuple[str, ...] | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    module: str = "simam"
    gate: str = "none"
    init: str = "weights"
    qdq: None = None
    replaced: None = None
    precision: str = "site"
    feature: None = None
    initializers: tuple[str, ...] = ()
    stored: Mapping[str, dict[str, str]] = field(default_factory=lambda: {"alpha": {"initializer": "alpha"}})

    @property
    def block_output(self) -> str:
        return self.output_tensor


class ByHand:
    """What parity asks of a block."""

    rewritten = False

    def compared_with(self, feature: None) -> Reference:
        return PYTORCH


class SimAM(torch.nn.Module):
    """The published formula: the variance with n - 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squared = (x - x.mean((2, 3), keepdim=True)) ** 2
        variance = squared.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
        return x * torch.sigmoid(squared / (4 * (variance + 1e-4)) + 0.5)


class ModelWithInsertions(ModelFile):
    """A model file that says by itself what was inserted."""

    made: tuple[Any, ...] = ()

    def insertions(self) -> list[Any]:
        return list(self.made)


Steps = list[tuple[str, list[str], str]]

MEAN_FORM: Steps = [
    ("ReduceMean", ["site"], "mean"),
    ("Sub", ["site", "mean"], "d"),
    ("Mul", ["d", "d"], "squared"),
    ("ReduceMean", ["squared"], "population"),
    ("Mul", ["population", "bessel"], "four_variance"),
    ("Add", ["four_variance", "four_lambda"], "below"),
    ("Div", ["squared", "below"], "energy"),
    ("Add", ["energy", "half"], "shifted"),
    ("Sigmoid", ["shifted"], "gate"),
    ("Mul", ["site", "gate"], "inserted"),
]
SUM_FORM: Steps = [
    *MEAN_FORM[:3],
    ("ReduceSum", ["squared"], "sum"),
    ("Mul", ["sum", "four_over_n"], "four_variance"),
    *MEAN_FORM[5:],
]
POPULATION_FORM: Steps = [
    step if step[2] != "four_variance" else ("Mul", ["population", "four"], step[2]) for step in MEAN_FORM
]
CONSTANT_GATE: Steps = [("Mul", ["site", "gate_of_nothing"], "inserted")]


def simam(
    steps: Steps = MEAN_FORM,
    *,
    dtype: str = "float32",
    size: int = 16,
    dynamic: bool = False,
    opset: int = 12,
    tail: str = "Sigmoid",
    twin: Callable[[], torch.nn.Module] = SimAM,
    gate: str = "none",
) -> ModelWithInsertions:
    """images [1, 3, size, size] -> Conv -> SimAM (as these steps) -> ``tail``."""
    kind = helper.np_dtype_to_tensor_dtype(numpy_dtype(dtype))
    nodes = [_node(step, kind) for step in steps]
    names = {name for node in nodes for name in node.input}
    area = size * size
    numbers = {
        "bessel": 4 * area / (area - 1),
        "four_over_n": 4 / (area - 1),
        "four": 4.0,
        "four_lambda": 4e-4,
        "half": 0.5,
        "alpha": 0.0,
        "gate_of_nothing": 1 / (1 + np.exp(-0.5)),
    }
    kernel = np.random.default_rng(0).standard_normal((CHANNELS, 3, 3, 3))
    weights = {"kernel": kernel} | {k: np.reshape(v, (1, 1, 1, 1)) for k, v in numbers.items() if k in names}
    shape = ["n", CHANNELS, "h", "w"] if dynamic else [1, CHANNELS, size, size]
    whole = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "kernel"], ["site"], name="conv", pads=[1, 1, 1, 1]),
            *nodes,
            helper.make_node(tail, ["inserted"], ["output"], name="tail"),
        ],
        "detector",
        [helper.make_tensor_value_info("images", kind, ["n", 3, "h", "w"] if dynamic else [1, 3, size, size])],
        [helper.make_tensor_value_info("output", kind, shape)],
        [numpy_helper.from_array(v.astype(numpy_dtype(dtype)), k) for k, v in weights.items()],
    )
    proto = helper.make_model(whole, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model = ModelWithInsertions.load(proto)
    assert isinstance(model, ModelWithInsertions)
    site = Site("model.8", "site", tuple(shape), dtype)
    model.made = (Insertion("model.8.simam", site, "inserted", tuple(n.name for n in nodes), twin, gate=gate),)
    return model


def _node(step: tuple[str, list[str], str], kind: int) -> NodeProto:
    op_type, inputs, output = step
    settings = {"axes": [2, 3], "keepdims": 1} if op_type.startswith("Reduce") else {}
    return helper.make_node(op_type, inputs, [output], name=f"/simam/{output}", **settings)


def _twin(insertion: Insertion, weights: Mapping[str, Any], trust: object) -> torch.nn.Module:
    module = insertion.make_twin().double().eval()
    for key, values in weights.items():
        torch.nn.init.constant_(module.get_parameter(key), values.item())
    return module


@pytest.fixture
def make_simam(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModelWithInsertions]:
    """:func:`simam`; the rest of such a model is not looked at."""
    monkeypatch.setattr(comparison, "block_of", lambda insertion: ByHand())
    monkeypatch.setattr(variants, "block_of", lambda insertion, trust: ByHand())
    monkeypatch.setattr(variants, "weights_of", lambda insertion, model, trust: {})
    monkeypatch.setattr(variants, "module_with", _twin)
    monkeypatch.setattr(comparison, "unchanged", lambda model, original: Unchanged(True, "not looked at in this test"))
    return simam


@pytest.fixture
def forms() -> dict[str, Steps]:
    """SimAM written in ways that are right and in ways that are not."""
    return {"mean": MEAN_FORM, "sum": SUM_FORM, "population": POPULATION_FORM, "constant": CONSTANT_GATE}
