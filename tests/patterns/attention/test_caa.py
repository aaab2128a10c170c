"""Context Anchor Attention: what the mean counts at the borders, its two forms, its kernels."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights

PLAIN = ["AveragePool", "Conv", "Conv", "Conv", "Conv", "Sigmoid", "Mul"]
SILU = ["Sigmoid", "Mul"]


@pytest.mark.parametrize("opset", [9, 11, 17, 19, 22])
def test_operators(opset: int) -> None:
    for height in (13, None):
        feature = feature_map(12, height)
        assert build("caa", feature=feature, opset=opset).operators == PLAIN
        expected = ["AveragePool", "Conv", *SILU, "Conv", "Conv", "Conv", *SILU, "Sigmoid", "Mul"]
        assert build("caa[bn-silu]", feature=feature, opset=opset).operators == expected


def test_the_mean_counts_the_padding() -> None:
    """As torch, not as ONNX's default: 16/49 at the corner of a map of ones."""
    feature = feature_map(1, 20, 20)
    shapes = make_block("caa").parameters(feature)
    given = {key: np.zeros(shape) for key, shape in shapes.items()}
    for key in ("conv1.conv.weight", "conv2.conv.weight"):
        given[key][...] = 1
    for key in ("h_conv.conv.weight", "v_conv.conv.weight"):
        given[key].reshape(-1)[5] = 1
    y = Runtime(build("caa", feature=feature, weights=given).model)(np.ones((1, 1, 20, 20), np.float32))
    np.testing.assert_allclose(y[0, 0, 0, 0], 1 / (1 + np.exp(-16 / 49)), rtol=1e-6)
    np.testing.assert_allclose(y[0, 0, 10, 10], 1 / (1 + np.exp(-1)), rtol=1e-6)


def test_the_first_strip_lies_the_second_stands() -> None:
    convolutions = [node for node in build("caa", {"h_kernel_size": 5}).graph.node if node.op_type == "Conv"]
    kernels = [helper.get_node_attr_value(node, "kernel_shape") for node in convolutions]
    assert kernels == [[1, 1], [1, 5], [11, 1], [1, 1]]


def test_the_gate_with_silu_is_bounded_below() -> None:
    feature = feature_map(12)
    built = build("caa[bn-silu]", feature=feature)
    x = (np.random.default_rng(2).standard_normal((1, 12, 13, 21)) * 20).astype(np.float32)
    gate = Runtime(built.model)(x) / x
    assert 0.4307 < gate.min() < 0.45


@pytest.mark.parametrize("spelled", ["caa", "caa[bn-silu]"])
def test_keys_of_ports_and_kernels_from_the_weights(spelled: str) -> None:
    feature = feature_map(8)
    given = random_weights(make_block(spelled, {"h_kernel_size": 7, "v_kernel_size": 13}), feature)
    renamed = {key.replace("_conv.conv.", "_conv."): values for key, values in given.items()}
    assert "h_conv.weight" in renamed
    block, fitted = fit(make_block(spelled), feature, renamed)
    assert (block.values["h_kernel_size"], block.values["v_kernel_size"]) == (7, 13)
    assert {key: values.tolist() for key, values in fitted.items()} == {k: v.tolist() for k, v in given.items()}


def test_even_kernels_are_refused() -> None:
    with pytest.raises(BlockError, match="v_kernel_size of caa is odd, not 4: an even one would change the size"):
        build("caa", {"v_kernel_size": 4})


def test_the_epsilon_is_one_of_the_form_with_a_normalisation() -> None:
    assert make_block("caa[bn-silu]").values["bn_eps"] == 1e-3
    with pytest.raises(BlockError, match="no hyper-parameter 'bn_eps'"):
        make_block("caa", {"bn_eps": 1e-5})
