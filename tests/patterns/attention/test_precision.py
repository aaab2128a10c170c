"""Half precision at the magnitudes that detectors produce, in each of the precisions that a block can be written in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto

from graphsurgery.request import PRECISIONS as ALL
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime, Stepwise
from tests.patterns.attention.gates import assert_gate_follows
from tests.patterns.attention.harness import (
    BLOCKS,
    DYNAMIC,
    HALVES,
    LATER,
    STATIC,
    Array,
    Named,
    build,
    feature_map,
    few_inputs,
    is_heavy,
    label,
    opsets_of,
    possible,
    trait,
)
from tests.patterns.attention.test_simam import sum_form
from tests.patterns.attention.verdicts import assert_agrees, assert_tensorrt_friendly, assert_types, assert_valid

ONE_OF_EACH: list[Named] = list({spelled: (spelled, settings) for spelled, settings in [*LATER, *BLOCKS]}.values())
PRECISIONS = tuple(precision for precision in ALL if precision != "fp16")
"""fp16 is safe at these sites; at float32 ones see tests/graphsurgery/test_half_islands.py"""
TARGETS_AND_PRECISIONS = [*(("tensorrt", p) for p in PRECISIONS), ("onnxruntime", "safe"), ("dla", "safe")]
every_precision = pytest.mark.parametrize("precision", PRECISIONS)
one_of_each = pytest.mark.parametrize("block", ONE_OF_EACH, ids=label)
MAGNITUDES = (1.0, 30.0, 200.0)
"""The largest input; the standard deviation is a quarter of it."""


def signal(magnitude: float, side: int, channels: int = 12) -> Array:
    """Normal, every channel with a mean of its own."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1, channels, side, side)) + 0.3 * rng.standard_normal((1, channels, 1, 1))
    return np.clip(x * magnitude / 4, -magnitude, magnitude).astype(np.float16)


def check(block: Named, precision: str, magnitude: float, side: int, target: str = "tensorrt") -> bool:
    """The block in float16, every result between two operators rounded; whether its gate could be seen to vary."""
    feature = feature_map(12, side, side, "float16")
    made, fresh = make_block(*block), trait(block[0], "LARGEST", None) is not None
    # with random weights, a block that is a polynomial of its input gives more than float16 holds
    weights = made.initial(feature, np.random.default_rng(1)) if fresh else None
    built = build(*block, feature, precision=precision, target=target, weights=weights)
    x = signal(magnitude, side)
    expected = built.expected(x)
    slack, largest = built.slack(x), np.abs(expected).max()
    allowed, seen = 0.02 * largest + slack, False
    for run in (Stepwise(built.model), Runtime(built.model)):
        y = run(x)
        what = f"{label(block)}, {precision}, magnitude {magnitude:g}"
        assert np.abs(y.astype(np.float64) - expected).max() <= allowed, what  # false for what is no number
        seen = slack < 0.02 * largest and assert_gate_follows(y, expected, x, what)
    return seen


# ---------------------------------------------------------------------- large magnitudes


@every_precision
@one_of_each
def test_float16_at_magnitude_200(block: Named, precision: str) -> None:
    check(block, precision, 200.0, 20)


def test_the_gates_of_most_blocks_can_be_seen() -> None:
    """Those that cannot multiply rounding errors, or have no gate that varies."""
    seen = {block[0].partition("[")[0] for block in ONE_OF_EACH if check(block, "safe", 30.0, 20)}
    assert len(seen) > 0.7 * len({block[0].partition("[")[0] for block in ONE_OF_EACH})


@pytest.mark.parametrize("magnitude", [30.0, 200.0])
def test_these_checks_see_a_gate_that_is_constant(magnitude: float) -> None:
    """SimAM as exporters write it: finite, and 0.622 everywhere."""
    wrong = sum_form(feature_map(12, 80, 80, "float16"))
    x = signal(magnitude, 80)
    with pytest.raises(AssertionError, match=r"the gate is 0\.62. everywhere"):
        assert_gate_follows(Stepwise(wrong.model)(x), wrong.expected(x), x)
    assert assert_gate_follows(wrong.expected(x), wrong.expected(x), x)


def test_these_checks_see_a_gate_that_varies_wrongly() -> None:
    right = build("simam", feature=feature_map(12, 20, 20, "float16"))
    x = signal(1.0, 20)
    y, gates = right.expected(x), np.random.default_rng(3).permuted(right.expected(x) / np.where(x == 0, 1, x), axis=1)
    with pytest.raises(AssertionError, match="not as it should"):
        assert_gate_follows(gates * x, y, x)


@pytest.mark.pairwise
@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize(("target", "precision"), TARGETS_AND_PRECISIONS)
@pytest.mark.parametrize("block", [*BLOCKS, *LATER], ids=label)
def test_float16_on_a_large_map(block: Named, target: str, precision: str, magnitude: float) -> None:
    large = target == "tensorrt" and not is_heavy(block)
    check(block, precision, magnitude, 80 if large else 40, target)


# ---------------------------------------------------------------------- numbers and types


def halves() -> Iterator[tuple[str, int, bool]]:
    """(type, opset, whether height and width are known)"""
    for dtype in HALVES:
        for opset in (opsets_of(dtype)[0], 17, 18, 22):
            yield from ((dtype, opset, static) for static in (True, False))


def agrees(block: Named, dtype: str, opset: int, static: bool, precision: str) -> None:
    """Every lowering: valid, of the right types, the function of the module."""
    feature = replace(STATIC if static else DYNAMIC, dtype=dtype)
    if not possible(block, feature, opset):
        return
    wide = replace(feature, dtype="float32") if precision == "fp32" else feature
    for lowering in make_block(*block).lowerings(wide, opset):
        built = build(*block, feature, opset=opset, lowering=lowering, precision=precision)
        assert_types(built)
        if not built.subgraph.warnings:
            assert_valid(built)
        assert_agrees(built, Stepwise(built.model), few_inputs(feature), rounded=True)


@pytest.mark.parametrize("precision", ["site", "fp32"])
@one_of_each
def test_half_precision(block: Named, precision: str) -> None:
    agrees(block, "float16", 18, True, precision)
    agrees(block, "bfloat16", 17, True, precision)


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "opset", "static"), list(halves()))
@pytest.mark.parametrize("precision", ["site", "fp32"])
@pytest.mark.parametrize("block", [*BLOCKS, *LATER], ids=label)
def test_half_precision_everywhere(block: Named, precision: str, dtype: str, opset: int, static: bool) -> None:
    agrees(block, dtype, opset, static, precision)


@one_of_each
def test_the_precisions_are_one_at_sites_that_have_it(block: Named) -> None:
    for dtype in ("float32", "float64"):
        models = {
            build(*block, replace(STATIC, dtype=dtype), precision=p).model.SerializeToString() for p in PRECISIONS
        }
        assert len(models) == 1


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@one_of_each
def test_site_computes_in_float16_alone(block: Named, opset: int) -> None:
    """Softmaxes and LayerNorms too, in every lowering. The scales of a Resize are float32 in any case."""
    feature = replace(STATIC, dtype="float16")
    for lowering in make_block(*block).lowerings(feature, opset):
        built = build(*block, feature, opset=opset, lowering=lowering, precision="site")
        scales = {name for node in built.graph.node if node.op_type == "Resize" for name in node.input[1:]}
        wide = {name for name, tensor in built.constants.items() if tensor.data_type == TensorProto.FLOAT}
        assert "Cast" not in built.operators
        assert wide <= scales


@one_of_each
def test_fp32_is_one_island(block: Named) -> None:
    built = build(*block, replace(STATIC, dtype="float16"), precision="fp32")
    casts = [node for node in built.graph.node if node.op_type == "Cast"]
    assert [node.attribute[0].i for node in casts] == [TensorProto.FLOAT, TensorProto.FLOAT16]
    assert casts[0].input[0] == "x"
    assert casts[1].output[0] == built.subgraph.output
    assert sum("x" in node.input for node in built.graph.node) == 1
    assert {t.data_type for t in built.constants.values()} <= {TensorProto.FLOAT, TensorProto.INT64}
    inner = build(*block, STATIC)
    assert [node.op_type for node in inner.graph.node] == built.operators[1:-1]


@pytest.mark.parametrize("opset", [13, 18, 22])
@one_of_each
def test_tensorrt_takes_it(block: Named, opset: int) -> None:
    for precision in PRECISIONS:
        built = build(*block, replace(STATIC, dtype="float16"), opset=opset, precision=precision)
        assert_tensorrt_friendly(built)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("precision", PRECISIONS)
@one_of_each
def test_a_closed_gate_is_exact_to_the_bit(block: Named, precision: str, dtype: str) -> None:
    feature = replace(STATIC, dtype=dtype)
    built = build(*block, feature, opset=22, precision=precision, gated=True)
    x = few_inputs(feature)[0][1]
    assert np.array_equal(Stepwise(built.model)(x), x.astype(np.float32))


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize(
    "block",
    [("mhsa", {}), ("mhsa[yolo]", {"pos_emb": True}), ("psablock", {"num_heads": 2}), ("polarized", {})],
    ids=label,
)
def test_site_holds_logits_that_float16_does_not(block: Named, opset: int) -> None:
    """Queries and keys of order 200 in 64 channels: products of several times 65504, of which one wins the softmax."""
    feature = feature_map(64, 10, 10, "float16")
    built = build(*block, feature, opset=opset, precision="site", seed=2)
    x = signal(800.0, 10, 64)
    with np.errstate(over="ignore"):
        expected = built.expected(x)
    for run in (Stepwise(built.model), Runtime(built.model)):
        y = run(x).astype(np.float64)
        assert np.isfinite(y).all()
        # rounding decides where two logits of that size are neighbours; elsewhere the same position wins
        close = np.abs(y - expected) <= 0.02 * np.abs(expected).max()
        assert close.mean() > 0.9
