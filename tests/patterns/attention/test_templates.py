"""Every block in every form: valid, of the site's type, fit for TensorRT, and the function of its PyTorch module.

The long ones are whole matrices, of which test_pairs.py has every pair.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import pytest

from graphsurgery.blocks.registry import all_blocks
from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.request import TARGETS
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Reference, Runtime, Stepwise, evaluators
from tests.patterns.attention.harness import (
    BLOCKS,
    CASES,
    DTYPES,
    DYNAMIC,
    DYNAMIC_BATCH,
    HALVES,
    LATER,
    OPSETS,
    STATIC,
    Built,
    Named,
    build,
    every_block,
    feature_map,
    few_inputs,
    forms,
    inputs,
    is_heavy,
    opsets_of,
    possible,
    random_weights,
    trait,
)
from tests.patterns.attention.verdicts import (
    assert_agrees,
    assert_close,
    assert_tensorrt_friendly,
    assert_types,
    assert_valid,
)

WIDELY_USED = (11, 13, 17, 18, 21)
"""Opsets of the full matrix; test_every_opset and test_pairs.py have all."""

SIZES = [(20, 20), (13, 21), (38, 46), (1, 1), (1, 9), (7, 1), (2, 2), (5, 3)]


def check(built: Built, cases: str = "few") -> None:
    """Everything that holds for every template; its numbers by whatever evaluator has the kernels."""
    dtype = built.feature.dtype
    assert_types(built)
    if built.subgraph.warnings:
        assert dtype == "bfloat16"
        with pytest.raises(onnx.shape_inference.InferenceError):
            assert_valid(built)
    else:
        assert_valid(built)
    tried = few_inputs(built.feature) if cases == "few" else inputs(built.feature)
    if dtype in HALVES:
        assert_agrees(built, Stepwise(built.model), tried, rounded=True, what="rounded after every node:")
    for evaluator in evaluators(built):
        assert_agrees(built, evaluator, tried)


def test_every_block_and_variant_is_tested() -> None:
    tested = {make_block(*block).spelled for block in [*BLOCKS, *LATER]}
    tested |= {spelled for module in CASES.values() for spelled in getattr(module, "ELSEWHERE", ())}
    assert tested == {
        f"{name}[{variant}]" if variant else name
        for name, block in all_blocks().items()
        for variant in (block.variants or [None])
    }


@every_block
def test_the_inputs_show_an_error_in_any_parameter(block: Named) -> None:
    """The comparisons are worth something: one parameter off by a hundredth takes the result out of the tolerance.

    Not by the same hundredth everywhere: a normalisation behind it would cancel a common factor.
    """
    made = make_block(*block)
    right = build(*block, STATIC)
    for key in made.parameters(STATIC):
        if key in trait(block[0], "INERT", ()):
            continue
        given = random_weights(made, STATIC)
        values = given[key]
        given[key] = values * np.linspace(1.02, 1.0, values.size).reshape(values.shape)
        wrong = build(*block, STATIC, weights=given)
        with pytest.raises(AssertionError, match="times the tolerance"):
            assert_agrees(right, wrong.expected, few_inputs(STATIC))


# ---------------------------------------------------------------------- numbers and validity


@pytest.mark.long
@every_block
def test_every_opset(block: Named) -> None:
    for opset in OPSETS:
        for built in forms(block, STATIC, opset):
            check(built)


@pytest.mark.long
@every_block
@pytest.mark.parametrize("feature", [DYNAMIC_BATCH, DYNAMIC], ids=["batch", "size"])
def test_dynamic_sites(block: Named, feature: FeatureMap) -> None:
    for opset in (9, 10, 11, 12, 13, 17, 18, 22, OPSETS[-1]):
        if possible(block, feature, opset):
            for built in forms(block, feature, opset):
                check(built)


@pytest.mark.long
@every_block
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_element_type(block: Named, dtype: str) -> None:
    for opset in (opsets_of(dtype)[0], 17, 22):
        for site in (STATIC, DYNAMIC):
            feature = replace(site, dtype=dtype)
            if possible(block, feature, opset):
                for built in forms(block, feature, opset):
                    check(built, "all")


@pytest.mark.long
@every_block
def test_every_size(block: Named) -> None:
    for number, (height, width) in enumerate(SIZES):
        feature = feature_map((16, 5, 33)[number % 3], height, width, batch=(1, 3)[number % 2])
        if possible(block, feature, 17):
            for built in forms(block, feature, 17):
                check(built, "all")


@pytest.mark.long
@every_block
def test_one_dynamic_side(block: Named) -> None:
    for feature in (feature_map(12, None), feature_map(12, width=None)):
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
    feature = feature_map(4, 7, 8, dtype)
    if not possible(block, feature, 22):
        pytest.skip("it cannot be put on so few channels")
    for built in forms(block, feature, 22):
        if dtype == "bfloat16" and any(node.op_type == "ConvTranspose" for node in built.model.graph.node):
            continue  # it computes these by numpy's einsum, which has no bfloat16
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
    largest = (19, 38) if is_heavy(block) else (38, 76)
    sizes: list[tuple[int | None, int | None]] = [(20, 20), (13, 21), largest, (1, 9)]
    if site in ("size", "height"):
        sizes = [(None, None)] if site == "size" else [(None, 21)]
    opsets = [opset for opset in opsets_of(dtype) if opset in WIDELY_USED]
    for opset, (height, width), channels in product(opsets, sizes, (5, 16)):
        feature = feature_map(channels, height, width, dtype, **change)
        if possible(block, feature, opset):
            for built in forms(block, feature, opset):
                check(built)


# ---------------------------------------------------------------------- what TensorRT takes


SITES = {
    "static": STATIC,
    "dynamic batch": DYNAMIC_BATCH,
    "dynamic": DYNAMIC,
    "odd sizes": feature_map(12, 38, 46),
    "square": feature_map(8, 20, 20),
}


@pytest.mark.pairwise
@every_block
@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 20, 22])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_chosen_for_tensorrt(block: Named, opset: int, site: str, dtype: str) -> None:
    feature = replace(SITES[site], dtype=dtype)
    if possible(block, feature, opset):
        built = build(*block, feature, opset=opset, target="tensorrt")
        assert_tensorrt_friendly(built)
        assert_valid(built)


@pytest.mark.pairwise
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
            assert list(built.subgraph.nodes)[-1].op_type != "Constant"
            onnx.checker.check_model(built.model, full_check=True)
            assert_agrees(built, Runtime(built.model), few_inputs(feature))


@every_block
def test_opset_8_is_refused(block: Named) -> None:
    with pytest.raises(BlockError, match="uses opset 8; blocks can be put into models of opset 9 and later"):
        build(*block, STATIC, opset=8)
