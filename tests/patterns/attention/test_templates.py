"""Every block in every form: valid, of the site's type, fit for TensorRT, and the function of its PyTorch module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from graphsurgery.block import all_blocks, make_block
from graphsurgery.errors import BlockError
from graphsurgery.featuremap import FeatureMap
from graphsurgery.record import GATE_KEY, load_weights
from graphsurgery.template import TARGETS
from graphsurgery.torch.gate import ResidualGate
from tests.patterns.attention.evaluators import NoKernel, Reference, Runtime, Stepwise
from tests.patterns.attention.harness import (
    BLOCKS,
    DTYPES,
    HALVES,
    OPSETS,
    Built,
    Settings,
    build,
    feature_map,
    few_inputs,
    inputs,
    label,
    opsets_of,
    random_weights,
)
from tests.patterns.attention.verdicts import (
    assert_agrees,
    assert_close,
    assert_tensorrt_friendly,
    assert_types,
    assert_valid,
)

Named = tuple[str, Settings]
every_block = pytest.mark.parametrize("block", BLOCKS, ids=label)

STATIC = feature_map()
DYNAMIC_BATCH = feature_map(batch=None)
DYNAMIC = feature_map(batch=None, height=None, width=None)
SIZES = [(20, 20), (13, 21), (38, 46), (1, 1), (1, 9), (7, 1), (2, 2), (5, 3)]


def forms(block: Named, feature: FeatureMap, opset: int) -> Iterator[Built]:
    """The block in each of its lowerings there; nothing where it cannot be put there."""
    made = make_block(*block)
    for lowering in made.lowerings(feature, opset):
        yield build(*block, feature, opset=opset, lowering=lowering)


def possible(block: Named, feature: FeatureMap, opset: int) -> bool:
    """What is refused is refused by name elsewhere: sizes that a block needs to know, and resizing to unknown ones."""
    spelled, settings = block
    if not feature.static:
        if spelled == "nam[channel+spatial]" or ("theta" in spelled and not settings.get("extent")):
            return False
        return opset >= 11 or not settings.get("extent")
    return spelled != "simam" or feature.area > 1


def check(built: Built, cases: str = "few") -> None:
    """Everything that holds for every template; its numbers by whatever evaluator has the kernels."""
    dtype = built.feature.dtype
    assert_types(built)
    if built.emitted.warnings:
        assert dtype == "bfloat16"
        with pytest.raises(onnx.shape_inference.InferenceError):
            assert_valid(built)
    else:
        assert_valid(built)
    tried = few_inputs(built.feature) if cases == "few" else inputs(built.feature)
    if dtype in HALVES:
        assert_agrees(built, Stepwise(built.model), tried, rounded=True, what="rounded after every node:")
    if dtype == "bfloat16":  # onnxruntime's CPU provider has no kernels for it
        return
    try:
        evaluators = [Runtime(built.model), Runtime(built.model, optimise=False)]
    except NoKernel:
        assert dtype == "float64"
        assert {"Conv", "AveragePool"} & set(built.operators)  # of which it has none for float64
        if built.opset == 10 and "Resize" in built.operators:  # which it takes for the one of opset 11
            return
        evaluators = [Reference(built.model)]
    for evaluator in evaluators:
        assert_agrees(built, evaluator, tried)


def test_every_block_and_variant_is_tested() -> None:
    tested = {make_block(*block).spelled for block in BLOCKS}
    assert tested == {
        f"{name}[{variant}]" if variant else name
        for name, block in all_blocks().items()
        for variant in (block.variants or [None])
    }


@every_block
def test_the_inputs_show_an_error_in_any_parameter(block: Named) -> None:
    """The comparisons are worth something: one parameter off by a hundredth takes the result out of the tolerance."""
    made = make_block(*block)
    right = build(*block)
    for key in made.parameters(STATIC):
        given = random_weights(made, STATIC)
        given[key] = given[key] * 1.01
        wrong = build(*block, weights=given)
        with pytest.raises(AssertionError, match="times the tolerance"):
            assert_agrees(right, wrong.expected, few_inputs(STATIC))


# ---------------------------------------------------------------------- numbers and validity


@every_block
def test_every_opset(block: Named) -> None:
    for opset in OPSETS:
        for built in forms(block, STATIC, opset):
            check(built)


@every_block
@pytest.mark.parametrize("feature", [DYNAMIC_BATCH, DYNAMIC], ids=["batch", "size"])
def test_dynamic_sites(block: Named, feature: FeatureMap) -> None:
    for opset in (9, 10, 11, 12, 13, 17, 18, 22, OPSETS[-1]):
        if possible(block, feature, opset):
            for built in forms(block, feature, opset):
                check(built)


@every_block
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_element_type(block: Named, dtype: str) -> None:
    for opset in (opsets_of(dtype)[0], 17, 22):
        for site in (STATIC, DYNAMIC):
            feature = replace(site, dtype=dtype)
            if possible(block, feature, opset):
                for built in forms(block, feature, opset):
                    check(built, "all")


@every_block
def test_every_size(block: Named) -> None:
    for number, (height, width) in enumerate(SIZES):
        feature = feature_map((16, 5, 33)[number % 3], height, width, batch=(1, 3)[number % 2])
        if possible(block, feature, 17):
            for built in forms(block, feature, 17):
                check(built, "all")


@every_block
def test_one_dynamic_side(block: Named) -> None:
    for feature in (feature_map(height=None), feature_map(width=None)):
        if possible(block, feature, 17):
            for built in forms(block, feature, 17):
                check(built)


@every_block
def test_against_the_reference_evaluator(block: Named) -> None:
    for dtype, site in product(("float32", "float64"), (feature_map(4, 10, 7), feature_map(4, None, None))):
        feature = replace(site, dtype=dtype)
        if possible(block, feature, 17):
            for built in forms(block, feature, 17):
                assert_agrees(built, Reference(built.model), few_inputs(feature))


@every_block
@pytest.mark.parametrize("dtype", HALVES)
def test_the_reference_evaluator_finds_the_types_in_order(block: Named, dtype: str) -> None:
    """It takes no operand of another type. Its sums in half precision are too coarse to compare more than roughly."""
    feature = feature_map(4, 6, 7, dtype)
    for built in forms(block, feature, 22):
        ((_, x),) = (case for case in inputs(feature) if case[0] == "magnitude 1")
        y = Reference(built.model)(x)
        assert y.dtype == feature.numpy_dtype
        assert_close(y, built.expected(x), x, dtype, built.lowering, factor=5, rounded=True)


@pytest.mark.long
@every_block
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("site", ["1", "3", "batch", "height", "size"])
def test_full_matrix(block: Named, dtype: str, site: str) -> None:
    change = {"batch": None} if site in ("batch", "size") else {"batch": int(site) if site.isdigit() else 1}
    sizes = [(20, 20), (13, 21), (38, 76), (1, 9)]
    if site in ("size", "height"):
        sizes = [(None, None)] if site == "size" else [(None, 21)]
    for opset, (height, width), channels in product(opsets_of(dtype), sizes, (5, 16)):
        feature = feature_map(channels, height, width, dtype, **change)
        if possible(block, feature, opset):
            for built in forms(block, feature, opset):
                check(built, "all")


# ---------------------------------------------------------------------- what TensorRT takes


@every_block
@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 20, 22])
def test_what_is_chosen_for_tensorrt(block: Named, opset: int) -> None:
    sites = [STATIC, DYNAMIC_BATCH, DYNAMIC, feature_map(height=38, width=46), feature_map(8, 20, 20)]
    for site, dtype in product(sites, ("float32", "float16")):
        feature = replace(site, dtype=dtype)
        if possible(block, feature, opset):
            built = build(*block, feature, opset=opset, target="tensorrt")
            assert_tensorrt_friendly(built)
            assert_valid(built)


@every_block
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [(20, 20), (80, 80)])
def test_what_is_chosen_for_a_target_can_be_emitted(block: Named, target: str, size: tuple[int, int]) -> None:
    for dtype in DTYPES:
        feature = feature_map(64, *size, dtype)
        built = build(*block, feature, opset=22, target=target)
        assert built.lowering in built.block.lowerings(feature, 22)


# ---------------------------------------------------------------------- old files


@every_block
def test_ir_3_has_its_constants_as_nodes(block: Named) -> None:
    """There, an initializer would have to be an input of the model too."""
    for feature in (STATIC, DYNAMIC):
        if possible(block, feature, 9):
            built = build(*block, feature, opset=9, ir_version=3)
            assert not built.graph.initializer
            assert list(built.emitted.nodes)[-1].op_type != "Constant"
            onnx.checker.check_model(built.model, full_check=True)
            assert_agrees(built, Runtime(built.model), few_inputs(feature))


@every_block
def test_opset_8_is_refused(block: Named) -> None:
    with pytest.raises(BlockError, match="uses opset 8; blocks can be put into models of opset 9 and later"):
        build(*block, STATIC, opset=8)


# ---------------------------------------------------------------------- weights


@every_block
@pytest.mark.parametrize("feature", [feature_map(48, 13, 21), feature_map(40, 8, 8)], ids=["48x13x21", "40x8x8"])
def test_parameters_are_the_modules_state(block: Named, feature: FeatureMap) -> None:
    made = make_block(*block)
    state = made.module(feature).state_dict()
    expected = {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert made.parameters(feature) == expected
    assert made.has_weights is bool(expected)


@every_block
def test_initial_weights_are_the_modules_own(block: Named) -> None:
    """The same distribution as the module's: exactly where it is a number, by its moments where it is random."""
    made, feature = make_block(*block), feature_map(256, 13, 21)
    torch.manual_seed(11)
    state, weights = made.module(feature).state_dict(), made.initial(feature, np.random.default_rng(3))
    assert set(weights) == set(made.parameters(feature))
    for key, values in weights.items():
        theirs = state[key].numpy()
        assert values.dtype == np.float32
        assert values.shape == theirs.shape
        if theirs.std() == 0:
            np.testing.assert_array_equal(values, theirs, err_msg=key)
        elif values.size > 500:
            assert abs(values.std() / theirs.std() - 1) < 0.12, key
            assert abs(np.abs(values).max() / np.abs(theirs).max() - 1) < 0.5, key
            assert abs(values.mean()) < 4 * theirs.std() / np.sqrt(values.size), key


@every_block
def test_initial_weights_follow_from_the_seed(block: Named) -> None:
    made, feature = make_block(*block), feature_map(32)
    once, again, other = (made.initial(feature, np.random.default_rng(seed)) for seed in (5, 5, 6))
    for key, values in once.items():
        np.testing.assert_array_equal(values, again[key])
    random = [key for key, values in once.items() if values.std() > 0]
    assert bool(random) is (block[0] in ("se", "ge[theta]", "ge[theta-plus]"))
    assert all(not np.array_equal(once[key], other[key]) for key in random)


@every_block
def test_a_fresh_block_agrees_and_can_be_read_back(block: Named) -> None:
    made, feature = make_block(*block), feature_map(32, 20, 20, batch=1)
    weights = made.initial(feature, np.random.default_rng(1))
    for lowering in made.lowerings(feature, 17):
        built = build(*block, feature, weights=weights, lowering=lowering)
        assert_agrees(built, Runtime(built.model))
        for key, values in weights.items():
            np.testing.assert_allclose(built.weights[key], values, rtol=1e-6, atol=1e-12, err_msg=key)


@every_block
def test_weights_read_back_are_those_given(block: Named) -> None:
    """Also where a BatchNorm with scales of either sign is folded in; rounded to the site's type at most twice."""
    for dtype, unit in (("float32", 1.2e-7), ("float16", 9.8e-4), ("bfloat16", 7.8e-3), ("float64", 2.3e-16)):
        feature = feature_map(dtype=dtype)
        given = random_weights(make_block(*block), feature)
        for lowering in make_block(*block).lowerings(feature, 22):
            read = build(*block, feature, opset=22, lowering=lowering, weights=given).weights
            assert list(read) == list(given)
            for key, values in given.items():
                smallest = 1e-6 if dtype == "float16" else 0.0  # where float16 begins to lose digits
                np.testing.assert_allclose(read[key], values, rtol=2 * unit, atol=smallest, err_msg=key)


# ---------------------------------------------------------------------- doing nothing

WILD = [("magnitude 200", 200.0), ("magnitude 3000", 3000.0), ("magnitude 1e-7", 1e-7)]


def wild_inputs(feature: FeatureMap) -> Iterator[tuple[str, np.ndarray]]:
    yield from inputs(feature)
    base = np.random.default_rng(9).standard_normal((feature.batch or 2, feature.channels, 13, 21))
    for name, magnitude in WILD:
        yield name, (base * magnitude).astype(feature.numpy_dtype)


HAVE_AN_IDENTITY = {"se", "ge[theta]", "ge[theta-plus]", "nam", "nam[channel]", "nam[channel+spatial]"}


@every_block
@pytest.mark.parametrize("dtype", DTYPES)
def test_identity_is_exact_to_the_bit(block: Named, dtype: str) -> None:
    made, feature = make_block(*block), feature_map(40, dtype=dtype)
    if block[0] not in HAVE_AN_IDENTITY or block[1].get("bias") is False:
        with pytest.raises(BlockError, match="--gate residual"):
            made.identity(feature)
        return
    weights = made.identity(feature)
    assert {key: values.shape for key, values in weights.items()} == made.parameters(feature)
    for lowering in made.lowerings(feature, 17):
        built = build(*block, feature, weights=weights, lowering=lowering)
        for name, x in wild_inputs(feature):
            for run in evaluators_of(built):
                np.testing.assert_array_equal(run(x).astype(x.dtype), x, err_msg=name)
            if dtype in ("float32", "float64"):
                module = made.module(feature)
                load_weights(module, weights)
                y = module.to(getattr(torch, dtype)).eval()(torch.from_numpy(x))
                np.testing.assert_array_equal(y.detach().numpy(), x, err_msg=f"module, {name}")


@every_block
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_closed_gate_is_exact_to_the_bit(block: Named, dtype: str) -> None:
    for site in (feature_map(8), feature_map(8, None, None, batch=None)):
        feature = replace(site, dtype=dtype)
        if possible(block, feature, 17):
            for lowering in make_block(*block).lowerings(feature, 17):
                built = build(*block, feature, gated=True, lowering=lowering)
                assert_types(built)
                for name, x in wild_inputs(feature):
                    for run in evaluators_of(built):
                        np.testing.assert_array_equal(run(x).astype(x.dtype), x, err_msg=name)


@every_block
def test_the_gate_adds_three_nodes(block: Named) -> None:
    bare, gated = build(*block), build(*block, gated=True)
    assert gated.operators == [*bare.operators, "Sub", "Mul", "Add"]
    assert_valid(gated)
    assert_tensorrt_friendly(gated)
    assert gated.weights[GATE_KEY].tolist() == [0.0]


@every_block
@pytest.mark.parametrize("alpha", [1.0, -0.4])
def test_an_open_gate_agrees_with_its_module(block: Named, alpha: float) -> None:
    built = build(*block, gated=True)
    name = built.emitted.stored[GATE_KEY]["initializer"]
    (stored,) = (tensor for tensor in built.graph.initializer if tensor.name == name)
    stored.CopyFrom(helper.make_tensor(name, stored.data_type, stored.dims, [alpha]))
    module = ResidualGate(built.twin)
    torch.nn.init.constant_(module.alpha, alpha)
    run = Runtime(built.model)
    for case, x in few_inputs(built.feature):
        expected = module.double()(torch.from_numpy(x.astype(np.float64))).detach().numpy()
        assert_close(run(x), expected, x, "float32", case, factor=2)


def evaluators_of(built: Built) -> list[Runtime | Stepwise | Reference]:
    """Whatever can run it: onnxruntime with optimisation on and off, or what stands in for missing kernels."""
    dtype = built.feature.dtype
    found: list[Runtime | Stepwise | Reference] = [Stepwise(built.model)] if dtype in HALVES else []
    try:
        if dtype != "bfloat16":
            found += [Runtime(built.model), Runtime(built.model, optimise=False)]
    except NoKernel:
        found.append(Reference(built.model))
    return found
