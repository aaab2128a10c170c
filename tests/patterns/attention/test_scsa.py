"""SCSA: four kernels as one, the mean taken before the attention, and where it cannot work."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from onnx import numpy_helper

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime, evaluators
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import Built, build, concrete, feature_map, random_weights
from tests.patterns.attention.verdicts import (
    assert_agrees,
    assert_close,
    assert_tensorrt_friendly,
    assert_types,
    assert_valid,
)

SOFTMAX: dict[str, object] = {"head_num": 2, "window_size": 3, "gate_layer": "softmax"}


@pytest.mark.parametrize("opset", [9, 13, 18, 21])
def test_no_channels_are_parted_or_joined(opset: int) -> None:
    for height in (13, None):
        operators = build("scsa", {"head_num": 2}, feature_map(12, height), opset=opset).operators
        assert operators.count("Conv") == 2
        assert not {"Split", "Concat", "Slice", "Gather", "Shape"} & set(operators)
        # the attention is multiplied with a mean, not with every position
        assert operators.count("MatMul") == 2


def test_each_quarter_has_its_own_kernel() -> None:
    built = build("scsa", {"head_num": 2}, feature_map(8))
    (node, *_) = [node for node in built.graph.node if node.op_type == "Conv"]
    kernel = numpy_helper.to_array(built.constants[node.input[1]])
    assert kernel.shape == (8, 1, 9, 1)
    for channel, width in enumerate(np.repeat([3, 5, 7, 9], 2)):
        margin = (9 - width) // 2
        line = kernel[channel, 0, :, 0]
        assert (line[:margin] == 0).all()
        assert (line[9 - margin :] == 0).all()
        assert (line[margin : 9 - margin] != 0).all()


@pytest.mark.parametrize(("height", "width"), [(7, 7), (20, 20), (13, 30)])
@pytest.mark.parametrize("heads", [1, 4, 16])
def test_sizes_and_heads(height: int, width: int, heads: int) -> None:
    for target in ("tensorrt", "onnxruntime"):
        built = build("scsa", {"head_num": heads}, feature_map(16, height, width, batch=2), target=target)
        assert_agrees(built, Runtime(built.model))


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(BlockError, match=r"/model.8 has 6 channels, which do not make four quarters"):
        build("scsa", feature=feature_map(6))
    with pytest.raises(BlockError, match=r"12 channels, which do not make 8 heads"):
        build("scsa", feature=feature_map(12))
    for size in ((6, 20), (20, 6), (None, 6)):
        with pytest.raises(BlockError, match=r"averages windows of 7 x 7, and /model\.8 has a side of 6"):
            build("scsa", feature=feature_map(16, *size))
    build("scsa", {"window_size": 6}, feature_map(16, 6, 20))


@pytest.mark.parametrize("given", ["3,5,7", "3,5,7,8", "3,5,7,x", "3,5,7,9,", "", "3 5 7 9"])
def test_kernels_are_four_odd_numbers(given: str) -> None:
    with pytest.raises(BlockError, match=r"group_kernel_sizes of scsa is four odd numbers as in 3,5,7,9, not"):
        build("scsa", {"group_kernel_sizes": given}, feature_map(16))


def test_other_kernels_are_widened_to_the_widest() -> None:
    built = build("scsa", {"head_num": 2, "group_kernel_sizes": "1,3,1,5"}, feature_map(8))
    (node, *_) = [node for node in built.graph.node if node.op_type == "Conv"]
    assert numpy_helper.to_array(built.constants[node.input[1]]).shape == (8, 1, 5, 1)


def test_windows_that_are_recombined_divide_the_map() -> None:
    """As channels and a 1x1 convolution that is a convolution in steps of a window."""
    settings: dict[str, object] = {"head_num": 2, "down_sample_mode": "recombination"}
    for target in ("tensorrt", "onnxruntime"):
        built = build("scsa", {**settings, "window_size": 4}, feature_map(8, 12, 16, batch=2), target=target)
        assert built.operators.count("Conv") == 3
        assert_agrees(built, Runtime(built.model))
    with pytest.raises(BlockError, match=r"windows of 7 x 7, and those do not divide /model\.8"):
        build("scsa", settings, feature_map(8, 14, 20))


def test_windows_of_nothing_are_refused() -> None:
    with pytest.raises(BlockError, match="window_size of scsa is at least 1, or -1 for the whole map, not 0"):
        build("scsa", {"window_size": 0}, feature_map(16))
    with pytest.raises(BlockError, match="window_size of scsa is at least -1"):
        make_block("scsa", {"window_size": -2})
    assert make_block("scsa", {"window_size": -1}).warnings(feature_map(16, None)) == []


@pytest.mark.parametrize(
    ("opset", "dtype"), [*product((11, 13, 18), ("float32", "float16", "float64")), (22, "float32"), (22, "bfloat16")]
)
def test_softmax_in_the_place_of_the_sigmoids(opset: int, dtype: str) -> None:
    """Shares of an image's positions are small: an input of thousands makes results of order one."""
    for site in (feature_map(12, 13, 21, dtype), feature_map(12, None, None, dtype, batch=None)):
        made = make_block("scsa", SOFTMAX)
        for lowering in made.lowerings(site, opset):
            built = build("scsa", SOFTMAX, site, opset=opset, lowering=lowering)
            assert_valid(built)
            assert_types(built)
            assert_tensorrt_friendly(built)
            x = np.random.default_rng(3).standard_normal(concrete(site)).astype(site.numpy_dtype) * 500
            for run in evaluators(built):
                assert_close(run(x), built.expected(x), x, dtype)
            for parameter in ("q.weight", "norm_w.weight", "global_dwc_m.weight", "norm.bias"):
                assert np.abs(built.expected(x) - changed(built, parameter).expected(x)).max() > 1e-3


def changed(built: Built, parameter: str) -> Built:
    """The same with one parameter in another order."""
    given = {**built.weights, parameter: built.weights[parameter][::-1]}
    return build("scsa", SOFTMAX, built.feature, opset=built.opset, weights=given)


def test_softmax_has_no_identity() -> None:
    with pytest.raises(BlockError, match=r"has gates by softmax.*gate='residual'"):
        make_block("scsa", SOFTMAX).identity(feature_map(16))


def test_what_weights_tell_of_the_mode() -> None:
    wanted: dict[str, object] = {
        "window_size": 3,
        "down_sample_mode": "recombination",
        "group_kernel_sizes": "3,3,5,7",
        "qkv_bias": False,
    }
    given = random_weights(make_block("scsa", wanted), feature_map(16, 9, 9))
    block, _ = fit(make_block("scsa"), feature_map(16, 9, 9), given)
    assert {key: block.values[key] for key in wanted} == wanted


def test_a_dynamic_site_is_warned_of() -> None:
    assert "windows of 7 x 7" in make_block("scsa").warnings(feature_map(16, None))[0]
    assert make_block("scsa").warnings(feature_map(16)) == []


def test_biases_of_the_projections_are_read_off_the_weights() -> None:
    given = random_weights(make_block("scsa", {"qkv_bias": True}), feature_map(16))
    shapes = {key: values.shape for key, values in given.items()}
    assert make_block("scsa").settings_from_weights(shapes) == {"qkv_bias": True, "group_kernel_sizes": "3,5,7,9"}


@pytest.mark.parametrize("magnitude", [50.0, 200.0])
def test_float16_at_large_magnitudes(magnitude: float) -> None:
    feature = feature_map(16, 40, 40, "float16")
    built = build("scsa", feature=feature)
    x = (np.random.default_rng(5).standard_normal((1, 16, 40, 40)) * magnitude / 3).astype(np.float16)
    y = Runtime(built.model)(x).astype(np.float64)
    expected = built.expected(x)
    assert np.isfinite(y).all()
    assert np.abs(y - expected).max() < 0.02 * np.abs(expected).max()
    gates = (y / np.where(x == 0, 1, x))[0].mean((1, 2))
    assert gates.std() > 0.01, "the gate has become a constant"
