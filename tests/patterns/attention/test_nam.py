"""NAM: one BatchNormalization, a sigmoid, a product; and, as in forks, the same over the positions."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import Array, build, feature_map, random_weights

CHANNEL = ["BatchNormalization", "Sigmoid", "Mul"]
SPATIAL = [*CHANNEL, "Mul", "Add", "Sigmoid", "Mul"]
SIGNED = "Channel_Att.bn2.weight"


def norm(x: Array, given: dict[str, Array], prefix: str, eps: float, axes: tuple[int, ...]) -> Array:
    def shaped(part: str) -> Array:
        return given[f"{prefix}.{part}"].astype(np.float64).reshape(axes)

    gamma = shaped("weight")
    u = (x - shaped("running_mean")) / np.sqrt(shaped("running_var") + eps) * gamma + shaped("bias")
    y: Array = x / (1 + np.exp(-u * np.abs(gamma) / np.abs(gamma).sum()))
    return y


def published(x: Array, given: dict[str, Array], eps: float) -> Array:
    """The formula, part after part, float64."""
    y = norm(x.astype(np.float64), given, "Channel_Att.bn2", eps, (1, -1, 1, 1))
    if "Spatial_Att.bn2.weight" not in given:
        return y
    return norm(y, given, "Spatial_Att.bn2", eps, (1, 1, *x.shape[2:]))


@pytest.mark.parametrize("opset", [9, 14, 15, 17, 22])
def test_operators(opset: int) -> None:
    for height, batch in ((13, 1), (13, None), (None, None)):
        built = build("nam", feature=feature_map(height=height, batch=batch), opset=opset)
        assert built.operators == CHANNEL
        assert build("nam[channel]", feature=built.feature, opset=opset).operators == CHANNEL
    for batch in (1, None):
        built = build("nam[channel+spatial]", feature=feature_map(batch=batch), opset=opset)
        assert built.operators == SPATIAL


def test_bfloat16_has_a_batch_normalization_from_opset_14_on() -> None:
    feature = feature_map(dtype="bfloat16")
    assert build("nam", feature=feature, opset=13).operators == ["Mul", "Add", "Sigmoid", "Mul"]
    assert build("nam", feature=feature, opset=14).operators == CHANNEL
    assert build("nam", feature=feature, opset=13).subgraph.warnings == []


def test_the_normalisation_is_a_plain_affine_with_an_epsilon_that_cudnn_takes() -> None:
    (node, *_) = build("nam").graph.node
    assert {a.name: helper.get_attribute_value(a) for a in node.attribute} == {"epsilon": pytest.approx(1e-5)}


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.3])
@pytest.mark.parametrize("spelled", ["nam", "nam[channel+spatial]"])
def test_the_published_formula(spelled: str, eps: float) -> None:
    feature = feature_map(12)
    given = random_weights(make_block(spelled), feature)
    assert (given[SIGNED] < 0).any()
    assert (given[SIGNED] > 0).any()
    built = build(spelled, {"bn_eps": eps}, feature, weights=given)
    x = np.random.default_rng(1).standard_normal((1, 12, 13, 21)).astype(np.float32)
    expected = published(x, given, eps)
    np.testing.assert_allclose(built.expected(x), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(Runtime(built.model)(x), expected, rtol=2e-6, atol=2e-6)
    if eps != 1e-5:
        assert np.abs(published(x, given, 1e-5) - expected).max() > 1e-4


def test_the_sign_of_a_scale_counts_in_the_normalisation_only() -> None:
    feature = feature_map()
    given = random_weights(make_block("nam"), feature)
    turned = {**given, SIGNED: -given[SIGNED]}
    x = np.random.default_rng(1).standard_normal((1, 6, 13, 21)).astype(np.float32)
    plain, other = (Runtime(build("nam", feature=feature, weights=each).model)(x) for each in (given, turned))
    assert np.abs(plain - other).max() > 0.1
    np.testing.assert_allclose(other, published(x, turned, 1e-5), rtol=2e-6, atol=2e-6)


def test_a_channel_of_scale_0_is_halved_or_shifted_not_lost() -> None:
    feature = feature_map(2)
    given = random_weights(make_block("nam"), feature)
    given[SIGNED] = np.array([0.0, 1.5], np.float32)
    built = build("nam", feature=feature, weights=given)
    x = np.random.default_rng(1).standard_normal((1, 2, 13, 21)).astype(np.float32)
    y = Runtime(built.model)(x)
    np.testing.assert_allclose(y, published(x, given, 1e-5), rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(y[:, 0], x[:, 0] / 2)


@pytest.mark.parametrize("part", ["Channel_Att", "Spatial_Att"])
def test_scales_that_are_all_0_are_refused(part: str) -> None:
    feature = feature_map()
    given = random_weights(make_block("nam[channel+spatial]"), feature)
    given[f"{part}.bn2.weight"] *= 0
    with pytest.raises(WeightsError, match=f"all of {part}.bn2.weight is 0"):
        build("nam[channel+spatial]", feature=feature, weights=given)


def test_the_weights_of_the_paper_have_signs() -> None:
    feature = feature_map(4)
    given = random_weights(make_block("nam"), feature)
    gamma = given[SIGNED] = np.array([0.5, -0.25, 1.0, 0.75], np.float32)
    built = build("nam", {"absolute": False}, feature, weights=given)
    x = np.random.default_rng(1).standard_normal((1, 4, 13, 21)).astype(np.float32)
    mean, variance, shift = (given[f"Channel_Att.bn2.{part}"] for part in ("running_mean", "running_var", "bias"))
    for c, scale in enumerate(gamma):
        u = (x[0, c] - mean[c]) / np.sqrt(variance[c] + 1e-5) * scale + shift[c]
        np.testing.assert_allclose(Runtime(built.model)(x)[0, c], x[0, c] / (1 + np.exp(-u * scale / 2)), rtol=1e-5)


def test_signed_scales_that_cancel_are_refused() -> None:
    feature = feature_map(4)
    given = random_weights(make_block("nam"), feature)
    given[SIGNED] = np.array([0.5, -0.5, 1.0, -1.0], np.float32)
    build("nam", feature=feature, weights=given)
    with pytest.raises(WeightsError, match=r"the sum of Channel_Att\.bn2\.weight is 0, and nam divides by its sum"):
        build("nam", {"absolute": False}, feature, weights=given)


@pytest.mark.parametrize("prefix", ["Spatial_Att.bn2", "spatial_att.bn2", "sa.bn", "bn2", "bn"])
def test_keys_of_the_spatial_part_alone(prefix: str) -> None:
    feature = feature_map(8, 3, 5)
    given = random_weights(make_block("nam[spatial]"), feature)
    renamed = {key.replace("Spatial_Att.bn2", prefix): values for key, values in given.items()}
    _, fitted = fit(make_block("nam[spatial]"), feature, renamed)
    assert {key: values.tolist() for key, values in fitted.items()} == {k: v.tolist() for k, v in given.items()}


def test_positions_have_to_be_known() -> None:
    for height, width in ((None, 20), (20, None), (None, None)):
        feature = feature_map(height=height, width=width)
        with pytest.raises(BlockError, match=r"nam\[channel\+spatial\] has one weight per position, and /model.8 has"):
            build("nam[channel+spatial]", feature=feature)
        build("nam", feature=feature)


@pytest.mark.parametrize("prefix", ["Channel_Att.bn2", "channel_att.bn2", "ca.bn2", "bn2", "bn"])
def test_keys_of_ports(prefix: str) -> None:
    feature = feature_map(8)
    given = random_weights(make_block("nam"), feature)
    renamed = {key.replace("Channel_Att.bn2", prefix): values for key, values in given.items()}
    renamed[f"{prefix}.num_batches_tracked"] = np.array(7)
    _, fitted = fit(make_block("nam"), feature, renamed)
    assert {key: values.tolist() for key, values in fitted.items()} == {k: v.tolist() for k, v in given.items()}


def test_positions_follow_the_rows_of_the_map() -> None:
    """Parameter p belongs to row p // W and column p % W, also where the map is not square."""
    feature = feature_map(3, 4, 7)
    given = random_weights(make_block("nam[channel+spatial]"), feature)
    given["Spatial_Att.bn2.bias"][2 * 7 + 5] = 40.0 * 28
    given["Spatial_Att.bn2.weight"][:] = 1.0
    built = build("nam[channel+spatial]", feature=feature, weights=given)
    x = np.random.default_rng(1).standard_normal((1, 3, 4, 7)).astype(np.float32)
    gate = Runtime(built.model)(x) / norm(x.astype(np.float64), given, "Channel_Att.bn2", 1e-5, (1, -1, 1, 1))
    np.testing.assert_allclose(gate[0, :, 2, 5], 1.0, rtol=1e-5)
    assert (np.delete(gate.reshape(3, 28), 2 * 7 + 5, axis=1) < 0.99).all()
