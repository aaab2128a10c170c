"""SCSA: four kernels as one, the mean taken before the attention, and where it cannot work."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.harness import build, feature_map, random_weights
from tests.patterns.attention.verdicts import assert_agrees


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


def test_a_dynamic_site_is_warned_of() -> None:
    assert "windows of 7 x 7" in make_block("scsa").warnings(feature_map(16, None))[0]
    assert make_block("scsa").warnings(feature_map(16)) == []


def test_biases_of_the_projections_are_read_off_the_weights() -> None:
    given = random_weights(make_block("scsa", {"qkv_bias": True}), feature_map(16))
    shapes = {key: values.shape for key, values in given.items()}
    assert make_block("scsa").settings_from_weights(shapes) == {"qkv_bias": True}


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
