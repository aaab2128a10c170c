"""Blocks that leave their input as it is: identity initialisation, and the closed residual gate. To the bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import helper

from graphsurgery.blocks.state_dict import load_weights
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template.residual_gate import GATE_KEY
from graphsurgery.torch import ResidualGate
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Evaluator, Runtime, Stepwise, evaluators
from tests.patterns.attention.harness import (
    DTYPES,
    HALVES,
    STATIC,
    Built,
    Named,
    build,
    every_block,
    feature_map,
    few_inputs,
    inputs,
    label,
    possible,
    trait,
)
from tests.patterns.attention.verdicts import assert_close, assert_tensorrt_friendly, assert_types, assert_valid

WILD = [("magnitude 200", 200.0), ("magnitude 3000", 3000.0), ("magnitude 1e-7", 1e-7)]


def wild_inputs(feature: FeatureMap) -> Iterator[tuple[str, np.ndarray]]:
    yield from inputs(feature)
    base = np.random.default_rng(9).standard_normal((feature.batch or 2, feature.channels, 13, 21))
    for name, magnitude in WILD:
        yield name, (base * magnitude).astype(feature.numpy_dtype)


def runs(built: Built) -> list[Evaluator]:
    return [*evaluators(built), *([Stepwise(built.model)] if built.feature.dtype in HALVES else [])]


HAVE_AN_IDENTITY = {"se", "ge[theta]", "ge[theta-plus]", "nam", "nam[channel]", "nam[channel+spatial]", "nam[spatial]"}


@every_block
@pytest.mark.parametrize("dtype", [*DTYPES[:-1], pytest.param(DTYPES[-1], marks=pytest.mark.long)])  # few use float64
def test_identity_is_exact_to_the_bit(block: Named, dtype: str) -> None:
    made, feature = make_block(*block), feature_map(40, dtype=dtype)
    has_one = block[0] in HAVE_AN_IDENTITY or {block[0], label(block)} & set(trait(block[0], "IDENTITY", ()))
    if not has_one or block[1].get("bias") is False:
        with pytest.raises(BlockError, match="gate='residual'"):
            made.identity(feature)
        return
    weights = made.identity(feature)
    assert {key: values.shape for key, values in weights.items()} == made.parameters(feature)
    for lowering in made.lowerings(feature, 17):
        built = build(*block, feature, weights=weights, lowering=lowering)
        for name, x in wild_inputs(feature):
            for run in runs(built):
                np.testing.assert_array_equal(run(x).astype(x.dtype), x, err_msg=name)
            if dtype in ("float32", "float64"):
                module = made.module(feature)
                load_weights(module, weights)
                y = module.to(getattr(torch, dtype)).eval()(torch.from_numpy(x))
                np.testing.assert_array_equal(y.detach().numpy(), x, err_msg=f"module, {name}")


@pytest.mark.pairwise
@every_block
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("site", [feature_map(8), feature_map(8, None, None, batch=None)], ids=["static", "dynamic"])
def test_a_closed_gate_is_exact_to_the_bit(block: Named, dtype: str, site: FeatureMap) -> None:
    feature = replace(site, dtype=dtype)
    if not possible(block, feature, 17):
        return
    for lowering in make_block(*block).lowerings(feature, 17):
        built = build(*block, feature, gated=True, lowering=lowering)
        assert_types(built)
        for name, x in wild_inputs(feature):
            if dtype == "float16" and np.abs(x.astype(np.float64)).max() > trait(block[0], "LARGEST", np.inf):
                continue
            for run in runs(built):
                np.testing.assert_array_equal(run(x).astype(x.dtype), x, err_msg=name)


@every_block
def test_the_gate_adds_three_nodes(block: Named) -> None:
    bare, gated = build(*block, STATIC), build(*block, STATIC, gated=True)
    assert gated.operators == [*bare.operators, "Sub", "Mul", "Add"]
    assert_valid(gated)
    assert_tensorrt_friendly(gated)
    assert gated.weights[GATE_KEY].tolist() == [0.0]


@every_block
@pytest.mark.parametrize("alpha", [1.0, -0.4])
def test_an_open_gate_agrees_with_its_module(block: Named, alpha: float) -> None:
    built = build(*block, STATIC, gated=True)
    name = built.subgraph.stored[GATE_KEY]["initializer"]
    (stored,) = (tensor for tensor in built.graph.initializer if tensor.name == name)
    stored.CopyFrom(helper.make_tensor(name, stored.data_type, stored.dims, [alpha]))
    module = ResidualGate(built.truth.module)
    torch.nn.init.constant_(module.alpha, alpha)
    run = Runtime(built.model)
    for case, x in few_inputs(built.feature):
        expected = module.double()(torch.from_numpy(x.astype(np.float64))).detach().numpy()
        slack = built.slack(x)
        assert_close(run(x), expected, x, "float32", case, factor=2, slack=slack)
