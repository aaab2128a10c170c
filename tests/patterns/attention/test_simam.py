"""SimAM: its forms, its epsilon, and float16 at the magnitudes at which the sum form silently fails."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template.template import Template
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime, Stepwise
from tests.patterns.attention.harness import Array, Built, build, feature_map
from tests.patterns.attention.verdicts import assert_close

INSTANCE_NORM = ["InstanceNormalization", "Mul", "Add", "Sigmoid", "Mul"]
MEAN = ["ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Div", "Mul", "Add", "Sigmoid", "Mul"]


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def published(x: Array, e_lambda: float) -> Array:
    """The formula as the authors' code has it, float64."""
    x = x.astype(np.float64)
    n = x.shape[2] * x.shape[3] - 1
    d = (x - x.mean(axis=(2, 3), keepdims=True)) ** 2
    energy = d / (4 * (d.sum(axis=(2, 3), keepdims=True) / n + e_lambda)) + 0.5
    y: Array = x / (1 + np.exp(-energy))
    return y


# ---------------------------------------------------------------------- forms


@pytest.mark.parametrize("opset", [9, 13, 17, 18, 22])
@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_static_site_takes_five_nodes(dtype: str, batch: int | None, opset: int) -> None:
    built = build("simam", feature=feature_map(dtype=dtype, batch=batch), opset=opset, precision="site")
    assert built.operators == INSTANCE_NORM


@pytest.mark.parametrize("opset", [13, 18])
def test_the_mean_form_at_a_static_site(opset: int) -> None:
    built = build("simam", opset=opset, lowering="mean")
    assert built.operators == MEAN
    reduced = [node for node in built.graph.node if node.op_type == "ReduceMean"]
    assert [len(node.input) for node in reduced] == [2 if opset == 18 else 1] * 2


@pytest.mark.parametrize(
    ("dtype", "opset", "height", "expected"),
    [
        ("float32", 17, 13, ["instance-norm", "scaled-mean", "mean"]),
        ("float16", 17, 13, ["instance-norm", "scaled-mean"]),
        ("bfloat16", 17, 13, ["mean"]),
        ("bfloat16", 21, 13, ["mean"]),
        ("bfloat16", 22, 13, ["instance-norm", "mean"]),
        ("float64", 22, 13, ["mean"]),
        ("float32", 17, None, ["mean"]),
        ("float16", 17, None, ["scaled-mean"]),
        ("bfloat16", 22, None, ["mean"]),
        ("float64", 17, None, ["mean"]),
    ],
)
def test_lowerings(dtype: str, opset: int, height: int | None, expected: list[str]) -> None:
    feature = feature_map(height=height, dtype=dtype)
    assert list(make_block("simam").lowerings(feature, opset)) == expected
    assert build("simam", feature=feature, opset=opset).lowering == expected[0]


def test_bfloat16_before_opset_22_is_valid() -> None:
    for opset in range(13, 22):
        built = build("simam", feature=feature_map(dtype="bfloat16"), opset=opset)
        assert built.subgraph.warnings == []
        assert "InstanceNormalization" not in built.operators


@pytest.mark.parametrize(("height", "width"), [(2, 1), (2, 2), (13, 21), (80, 80)])
@pytest.mark.parametrize("e_lambda", [1e-4, 0.1])
def test_epsilon_and_scale_turn_the_population_variance_into_the_published_one(
    e_lambda: float, height: int, width: int
) -> None:
    built = build("simam", {"e_lambda": e_lambda}, feature_map(4, height, width))
    positions = height * width
    assert attributes(built.graph.node[0])["epsilon"] == pytest.approx(e_lambda * (positions - 1) / positions)
    scale = numpy_helper.to_array(built.constants[built.graph.node[0].input[1]])
    np.testing.assert_allclose(scale, np.sqrt((positions - 1) / positions) / 2, rtol=1e-7)


@pytest.mark.parametrize("e_lambda", [1e-8, 1e-4, 0.1, 7.0])
@pytest.mark.parametrize("lowering", ["instance-norm", "mean"])
@pytest.mark.parametrize(("height", "width"), [(1, 2), (3, 3), (20, 20)])
def test_the_published_formula(lowering: str, height: int, width: int, e_lambda: float) -> None:
    """On a few positions M - 1 and M are far apart; at magnitude 0.01 the default lambda weighs as the variance."""
    built = build("simam", {"e_lambda": e_lambda}, feature_map(4, height, width), lowering=lowering)
    for magnitude in (0.01, 1.0):
        x = (np.random.default_rng(2).standard_normal((1, 4, height, width)) * magnitude).astype(np.float32)
        y = Runtime(built.model)(x)
        np.testing.assert_allclose(built.expected(x), published(x, e_lambda), rtol=1e-12)
        np.testing.assert_allclose(y, published(x, e_lambda), rtol=2e-6, atol=2e-6 * magnitude)


# ---------------------------------------------------------------------- float16


def signal(feature: FeatureMap, magnitude: float) -> Array:
    """Normal, with an odd position out in every channel."""
    shape = (feature.batch or 1, feature.channels, feature.height or 80, feature.width or 80)
    x = np.random.default_rng(4).standard_normal(shape)
    x[:, :, 3, 5] = 5.0
    return (x * magnitude).astype(feature.numpy_dtype)


def assert_not_a_constant_gate(y: Array, x: Array) -> None:
    """A sum that overflows makes every energy 0 and every gate sigmoid(0.5) = 0.622, without a single NaN."""
    wide = x.astype(np.float64)
    large = np.abs(wide) > 0.3 * np.abs(wide).std()
    gate = y.astype(np.float64)[large] / wide[large]
    assert np.isfinite(gate).all()
    assert gate.std() > 0.03, f"the gate is {gate.mean():.3f} everywhere"
    assert gate.max() > 0.95


def sum_form(feature: FeatureMap) -> Built:
    """SimAM as exporters write it, with the sum of squares: right in float32, wrong in float16."""
    t = Template(feature, opset=13, x="x")
    deviation = t.sub(t.x, t.mean_hw(t.x))
    square = t.mul(deviation, deviation)
    total = t.reduce("ReduceSum", square, (2, 3))
    variance = t.mul(total, t.scalar(1 / (feature.area - 1), "share"))
    energy = t.div(square, t.mul(t.add(variance, t.scalar(1e-4, "lambda")), t.scalar(4.0, "four")))
    y = t.mul(t.x, t.sigmoid(t.add(energy, t.scalar(0.5, "half"))))
    subgraph = t.export(y, ir_version=8)
    values = [
        helper.make_tensor_value_info(name, feature.onnx_type, (1, *signal(feature, 1).shape[1:])) for name in "xy"
    ]
    values[1].name = subgraph.output
    graph = helper.make_graph(subgraph.nodes, "sum", values[:1], values[1:], subgraph.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return Built(make_block("simam"), feature, model, subgraph, "sum")


SIDES = (80, 160)
MAGNITUDES = (1e-3, 0.1, 1.0, 4.0, 20.0, 100.0, 200.0)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("lowering", ["instance-norm", "scaled-mean"])
def test_float16_up_to_magnitude_200(lowering: str, side: int) -> None:
    feature = feature_map(2, side, side, "float16")
    built = build("simam", feature=feature, lowering=lowering)
    for run in (Stepwise(built.model), Runtime(built.model)):
        for magnitude in MAGNITUDES:
            x = signal(feature, magnitude)
            y = run(x)
            assert np.isfinite(y).all()
            assert_close(y, built.expected(x), x, "float16", f"magnitude {magnitude:g}", rounded=True)
            if magnitude >= 0.1:
                assert_not_a_constant_gate(y, x)


def test_float16_at_a_dynamic_site_up_to_magnitude_200() -> None:
    feature = feature_map(2, None, None, "float16", batch=None)
    built = build("simam", feature=feature)
    assert built.lowering == "scaled-mean"
    for run in (Stepwise(built.model), Runtime(built.model)):
        for side, magnitude in ((80, 1e-3), (80, 1.0), (80, 200.0), (160, 20.0), (160, 200.0), (320, 50.0)):
            x = signal(feature_map(2, side, side, "float16"), magnitude)
            y = run(x)
            assert_close(y, built.expected(x), x, "float16", f"{side}, magnitude {magnitude:g}", rounded=True)
            if magnitude >= 0.1:
                assert_not_a_constant_gate(y, x)


def test_these_checks_see_the_sum_form_fail() -> None:
    """The same checks on the form that is wrong: it passes where its sum fits into float16, and fails where not."""
    small = sum_form(feature_map(2, 20, 20, "float16"))
    x = signal(small.feature, 1.0)
    assert_close(Stepwise(small.model)(x), small.expected(x), x, "float16", rounded=True)
    for magnitude in (4.0, 20.0):
        large = sum_form(feature_map(2, 80, 80, "float16"))
        x = signal(large.feature, magnitude)
        y = Stepwise(large.model)(x)
        assert np.isfinite(y).all()
        with pytest.raises(AssertionError, match="times the tolerance"):
            assert_close(y, large.expected(x), x, "float16", rounded=True)
        with pytest.raises(AssertionError, match=r"the gate is 0\.62. everywhere"):
            assert_not_a_constant_gate(y, x)


@pytest.mark.parametrize("constant", [0.0, 1e-3, -7.0, 200.0])
@pytest.mark.parametrize("height", [80, None])
@pytest.mark.parametrize("e_lambda", [1e-8, 1e-4])
def test_a_constant_channel_is_finite_in_every_type(e_lambda: float, height: int | None, constant: float) -> None:
    """Its variance is 0, so that all that is divided by is lambda."""
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        feature = feature_map(2, height, height, dtype)
        for lowering in make_block("simam").lowerings(feature, 22):
            built = build("simam", {"e_lambda": e_lambda}, feature, opset=22, lowering=lowering)
            x = np.full((1, 2, 80, 80), constant, feature.numpy_dtype)
            y = (Stepwise if dtype.endswith("16") else Runtime)(built.model)(x)
            assert np.isfinite(y.astype(np.float64)).all()
            if e_lambda == 1e-4:  # with a smaller one the last bit of the mean counts
                expected = x.astype(np.float64) / (1 + np.exp(-0.5))
                np.testing.assert_allclose(y.astype(np.float64), expected, rtol=2e-2)


# ---------------------------------------------------------------------- requests


def test_a_map_of_one_position_is_refused() -> None:
    with pytest.raises(BlockError, match=r"/model\.8 is 1 x 1: its energy would be 0/0"):
        build("simam", feature=feature_map(height=1, width=1))
    for height, width in ((1, 2), (1, None), (None, None)):
        build("simam", feature=feature_map(height=height, width=width))


@pytest.mark.parametrize(("e_lambda", "warned"), [(1e-4, False), (0.1, False), (0.999, False), (1, True), (256, True)])
def test_a_lambda_that_is_the_channel_number_is_warned_about(e_lambda: float, warned: bool) -> None:
    warnings = make_block("simam", {"e_lambda": e_lambda}).warnings(feature_map())
    assert bool(warnings) is warned
    assert all("constant 0.62" in warning and f"e_lambda={e_lambda:g}" in warning for warning in warnings)


@pytest.mark.parametrize("value", [0, -1, "1e-9"])
def test_lambda_is_at_least_1e_8(value: object) -> None:
    with pytest.raises(BlockError, match=f"e_lambda of simam is at least 1e-08, not {value}"):
        make_block("simam", {"e_lambda": value})


def test_lambda_reaches_the_template() -> None:
    x = np.random.default_rng(1).standard_normal((1, 6, 13, 21)).astype(np.float32)
    for lowering in ("instance-norm", "mean"):
        usual, other = (Runtime(build("simam", {"e_lambda": v}, lowering=lowering).model)(x) for v in (1e-4, 0.1))
        assert np.abs(usual - other).max() > 1e-3
