"""MLCA: constant matrices instead of adaptive pooling, the long sequence, and where it cannot work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights
from tests.patterns.attention.verdicts import assert_agrees


@pytest.mark.parametrize(("height", "width"), [(20, 20), (80, 40), (13, 21), (16, 122), (3, 4), (1, 1), (5, 5)])
@pytest.mark.parametrize("cells", [5, 4, 1])
def test_cells_that_do_and_do_not_divide_the_map(height: int, width: int, cells: int) -> None:
    feature = feature_map(8, height, width, batch=2)
    for lowering in make_block("mlca", {"local_size": cells}).lowerings(feature, 17):
        for target in ("tensorrt", "onnxruntime"):
            built = build("mlca", {"local_size": cells}, feature, lowering=lowering, target=target)
            assert_agrees(built, Runtime(built.model))


@pytest.mark.parametrize(
    ("channels", "kernel"), [(2, 1), (8, 3), (64, 3), (96, 3), (128, 5), (256, 5), (1024, 5), (2048, 7)]
)
def test_the_kernel_follows_from_the_channels(channels: int, kernel: int) -> None:
    """As ECA's, but for the minimum of 3 that ECA has in timm."""
    assert make_block("mlca").parameters(feature_map(channels))["conv.weight"] == (1, 1, kernel)


def test_the_kernel_is_read_off_the_weights() -> None:
    given = random_weights(make_block("mlca", {"kernel_size": 9}), feature_map(16))
    block, _ = fit(make_block("mlca"), feature_map(16), given)
    assert block.values["kernel_size"] == 9


def test_a_cells_last_channel_sees_the_next_cells_first() -> None:
    """The sequence of the cells runs on from one to the next, as published."""
    feature = feature_map(3, 5, 5)
    given = {"conv.weight": np.zeros((1, 1, 3)), "conv_local.weight": np.array([[[0.0, 0.0, 1.0]]])}
    built = build("mlca", {"kernel_size": 3}, feature, weights=given)
    x = np.random.default_rng(1).standard_normal((1, 3, 5, 5)) + 3
    gate = built.expected(x) / x
    sigmoid = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(gate[0, 2, 0, 1], 0.25 + sigmoid[0, 0, 0, 2] / 2)
    np.testing.assert_allclose(gate[0, 0, 0, 1], 0.25 + sigmoid[0, 1, 0, 1] / 2)
    np.testing.assert_allclose(gate[0, 2, 4, 4], 0.5)
    np.testing.assert_allclose(Runtime(built.model)(x.astype(np.float32)) / x, gate, rtol=1e-5)


def test_what_cannot_work_is_refused() -> None:
    for size in ((None, 20), (20, None)):
        with pytest.raises(BlockError, match=r"mlca has fixed cells, and /model\.8 has a dynamic height or width"):
            build("mlca", feature=feature_map(8, *size))
    with pytest.raises(BlockError, match="kernel_size of mlca is odd"):
        build("mlca", {"kernel_size": 2})
    with pytest.raises(BlockError, match="local_weight of mlca is a share from 0 to 1"):
        build("mlca", {"local_weight": 1.5})


def test_no_pooling_nor_resize_nor_computed_shape() -> None:
    for batch in (1, None):
        operators = build("mlca", feature=feature_map(8, batch=batch)).operators
        assert operators.count("MatMul") == 2
        assert not {"AveragePool", "Resize", "Shape", "Expand"} & set(operators)


def test_the_matrices_are_torchs_adaptive_pooling() -> None:
    from graphsurgery.patterns.attention.mlca import _means

    for source, target in ((20, 5), (13, 5), (5, 13), (5, 122), (1, 5), (3, 5), (16, 16)):
        given = torch.eye(source, dtype=torch.float64)[None]
        expected = nn.AdaptiveAvgPool1d(target)(given)[0].T.numpy()
        np.testing.assert_allclose(_means(source, target), expected, atol=1e-15)
