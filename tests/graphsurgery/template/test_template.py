"""The template: names, constants of the site's type, and how each operator is spelled at the model's opset."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.feature_map import FeatureMap, float_dtype
from graphsurgery.template.names import UniqueNames
from graphsurgery.template.template import Template

DTYPES = ("float32", "float16", "bfloat16", "float64")
ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
}


def template(dtype: str = "float32", *, opset: int = 17, **rest: Any) -> Template:
    return Template(FeatureMap(4, 6, 7, dtype, 1), opset=opset, **rest)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


# ---------------------------------------------------------------------- the feature map


@pytest.mark.parametrize("dtype", DTYPES)
def test_element_types(dtype: str) -> None:
    feature = FeatureMap(4, 6, 7, dtype)
    assert feature.onnx_type == ONNX_TYPES[dtype]
    assert feature.numpy_dtype.name == dtype
    assert float_dtype(feature.onnx_type) == dtype


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT8, TensorProto.BOOL, TensorProto.FLOAT8E4M3FN, 0])
def test_other_element_types_have_no_name(kind: int) -> None:
    assert float_dtype(kind) is None


def test_sizes_of_a_feature_map() -> None:
    assert FeatureMap(4, 6, 7).area == 42
    assert FeatureMap(4, 6, 7).static
    for height, width in ((None, 7), (6, None), (None, None)):
        feature = FeatureMap(4, height, width, label="/model.8")
        assert not feature.static
        with pytest.raises(ValueError, match=r"/model\.8 has a dynamic height or width"):
            _ = feature.size


# ---------------------------------------------------------------------- names


def test_names_are_reserved_once() -> None:
    names = UniqueNames({"a", "a_1"})
    assert [names.reserve(wish) for wish in ("a", "a", "b", "b", "b_1")] == ["a_2", "a_3", "b", "b_1", "b_1_1"]
    assert names.taken == {"a", "a_1", "a_2", "a_3", "b", "b_1", "b_1_1"}


def test_nodes_and_tensors_are_called_as_the_torchscript_exporter_calls_them() -> None:
    t = template(scope="/model.8/se", weight_scope="model.8.se", weights={"fc.weight": np.ones((4, 4, 1, 1))})
    first = t.sigmoid(t.x)
    second = t.sigmoid(t.conv(first, t.weight("fc.weight")))
    subgraph = t.export(second, ir_version=8)
    assert [node.name for node in subgraph.nodes] == [
        "/model.8/se/Sigmoid",
        "/model.8/se/Conv",
        "/model.8/se/Sigmoid_1",
    ]
    assert [node.output[0] for node in subgraph.nodes] == [
        "/model.8/se/Sigmoid_output_0",
        "/model.8/se/Conv_output_0",
        "/model.8/se/Sigmoid_1_output_0",
    ]
    assert [tensor.name for tensor in subgraph.initializers] == ["model.8.se.fc.weight"]
    assert subgraph.output == "/model.8/se/Sigmoid_1_output_0"
    assert subgraph.stored == {"fc.weight": {"initializer": "model.8.se.fc.weight"}}


def test_names_of_the_model_are_left_alone() -> None:
    names = UniqueNames({"x", "/block/Sigmoid", "/block/Sigmoid_1_output_0", "block.half"})
    t = template(names=names)
    y = t.add(t.sigmoid(t.x), t.scalar(0.5, "half"))
    subgraph = t.export(y, ir_version=8)
    made = [*(n.name for n in subgraph.nodes), *(n.output[0] for n in subgraph.nodes), subgraph.initializers[0].name]
    assert made == [
        "/block/Sigmoid_1",
        "/block/Add",
        "/block/Sigmoid_1_output_0_1",
        "/block/Add_output_0",
        "block.half_1",
    ]
    assert names.taken >= set(made)


# ---------------------------------------------------------------------- constants


@pytest.mark.parametrize("dtype", DTYPES)
def test_constants_have_the_type_of_the_site(dtype: str) -> None:
    t = template(dtype, weights={"w": np.array([[1.0, 2.0]], np.float32)})
    y = t.x
    for constant in (t.constant(np.ones((1, 4, 1, 1)), "c"), t.scalar(0.1, "s"), t.weight("w", (1, 1, 1, 2))):
        y = t.mul(y, constant)
    subgraph = t.export(y, ir_version=8)
    assert {tensor.data_type for tensor in subgraph.initializers} == {ONNX_TYPES[dtype]}
    scalar = numpy_helper.to_array(next(tensor for tensor in subgraph.initializers if tensor.name.endswith(".s")))
    assert scalar.shape == (1, 1, 1, 1)
    assert scalar == np.full(1, 0.1).astype(FeatureMap(1, 1, 1, dtype).numpy_dtype)


def test_integers_and_floats_have_their_own_type_whatever_the_site_has() -> None:
    t = template("float16")
    assert t.integers([1, 2], "sizes").values.dtype == np.int64
    assert t.floats([1.5], "scales").values.dtype == np.float32


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("float16", 7e4, r"^w reaches 7e\+04, more than float16 can hold$"),
        ("float32", 1e39, "more than float32 can hold"),
        ("bfloat16", 3.4e38, "more than bfloat16 can hold"),
        ("float32", np.nan, "^w has values that are not finite$"),
        ("float16", np.inf, "^w has values that are not finite$"),
    ],
)
def test_values_that_the_type_cannot_hold_are_refused(dtype: str, value: float, message: str) -> None:
    t = template(dtype, weights={"w": np.array([1.0, value])})
    with pytest.raises(WeightsError, match=message):
        t.weight("w")


def test_folding_happens_in_float64() -> None:
    """Rounded once, at the end: not after each of the steps that a fold takes."""
    rng = np.random.default_rng(3)
    weights = {"conv.weight": rng.normal(size=(4, 1, 3, 3)).astype(np.float32)}
    weights |= {f"bn.{part}": rng.normal(size=4).astype(np.float32) for part in ("weight", "bias", "running_mean")}
    weights["bn.running_var"] = rng.uniform(0.1, 2.0, 4).astype(np.float32)
    wide = {key: value.astype(np.float64) for key, value in weights.items()}
    t = template("float16", weights=weights)
    weight, shift = t.folded("conv.weight", "bn", 1e-3)
    scale = wide["bn.weight"] / np.sqrt(wide["bn.running_var"] + 1e-3)
    np.testing.assert_array_equal(weight.values, (wide["conv.weight"] * scale.reshape(4, 1, 1, 1)).astype(np.float16))
    np.testing.assert_array_equal(shift, wide["bn.bias"] - scale * wide["bn.running_mean"])
    y = t.conv(t.x, weight, t.constant(shift, "conv.bias"), group=4)
    stored = t.export(y, ir_version=8).stored["conv.weight"]
    assert stored["divided_by"] == "bn"
    assert stored["eps"] == 1e-3


def test_up_to_ir_3_constants_are_nodes_in_front() -> None:
    t = template(opset=9)
    subgraph = t.export(t.mul(t.x, t.scalar(0.5, "half")), ir_version=3)
    assert [node.op_type for node in subgraph.nodes] == ["Constant", "Mul"]
    assert subgraph.initializers == []
    assert subgraph.nodes[0].output[0] == subgraph.nodes[1].input[1]
    assert subgraph.nodes[0].name
    assert len(t.export(t.x, ir_version=4).initializers) == 1


# ---------------------------------------------------------------------- operators


def test_opsets_that_are_too_old() -> None:
    with pytest.raises(BlockError, match="uses opset 8; blocks can be put into models of opset 9 and later"):
        template(opset=8)
    template(opset=9)


@pytest.mark.parametrize(
    ("kind", "opset", "as_input"),
    [
        ("ReduceMean", 17, False),
        ("ReduceMean", 18, True),
        ("ReduceMax", 17, False),
        ("ReduceMax", 18, True),
        ("ReduceSum", 12, False),
        ("ReduceSum", 13, True),
    ],
)
def test_axes_are_an_attribute_or_an_input(kind: str, opset: int, as_input: bool) -> None:
    t = template(opset=opset)
    (node,) = t.export(t.reduce(kind, t.x, (2, 3)), ir_version=8).nodes
    assert ("axes" in attributes(node)) is not as_input
    assert len(node.input) == (2 if as_input else 1)
    assert attributes(node)["keepdims"] == 1


def test_the_mean_is_one_reduction() -> None:
    t = template()
    (node,) = t.export(t.mean_hw(t.x), ir_version=8).nodes
    assert node.op_type == "ReduceMean"
    assert attributes(node) == {"axes": [2, 3], "keepdims": 1}


@pytest.mark.parametrize("keepdims", [0, 1])
def test_the_mean_of_a_large_map_is_taken_along_one_side_at_a_time(keepdims: int) -> None:
    """onnxruntime adds up one by one: in one reduction the mean of 0.7 is off by 2e-5."""
    t = Template(FeatureMap(4, 320, 320, "float32", 1), opset=17)
    subgraph = t.export(t.reduce("ReduceMean", t.x, (2, 3), keepdims), ir_version=8)
    assert [attributes(node)["axes"] for node in subgraph.nodes] == [[3], [2] if keepdims else [2, 3]]
    shape = (1, 4, 1, 1) if keepdims else (1, 4)
    x = helper.make_tensor_value_info(t.x.name, TensorProto.FLOAT, [1, 4, 320, 320])
    y = helper.make_tensor_value_info(subgraph.nodes[-1].output[0], TensorProto.FLOAT, shape)
    model = helper.make_model(
        helper.make_graph(subgraph.nodes, "mean", [x], [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {x.name: np.full((1, 4, 320, 320), 0.7, np.float32)})
    assert found.shape == shape
    np.testing.assert_allclose(found, 0.7, rtol=1e-6)


def test_a_convolution_states_its_kernel() -> None:
    t = template()
    weight = t.constant(np.ones((4, 1, 3, 5)), "w")
    (node,) = t.export(t.conv(t.x, weight, strides=[2, 2], group=4), ir_version=8).nodes
    assert attributes(node) == {"kernel_shape": [3, 5], "strides": [2, 2], "group": 4}
    assert len(node.input) == 2
    (node,) = t.export(t.conv(t.x, weight, t.constant(np.ones(4), "b")), ir_version=8).nodes[1:]
    assert len(node.input) == 3


@pytest.mark.parametrize(
    ("op_type", "dtype", "opset", "supported"),
    [
        ("Mul", "float16", 9, True),
        ("Mul", "bfloat16", 12, False),
        ("Mul", "bfloat16", 13, True),
        ("Conv", "bfloat16", 21, False),
        ("Conv", "bfloat16", 22, True),
        ("InstanceNormalization", "bfloat16", 21, False),
        ("InstanceNormalization", "float64", 9, True),
        ("BatchNormalization", "bfloat16", 13, False),
        ("BatchNormalization", "bfloat16", 14, True),
        ("Resize", "float16", 10, True),
        ("Resize", "float32", 9, False),
        ("Upsample", "float32", 9, True),
        ("NoSuchOperator", "float32", 17, False),
    ],
)
def test_what_an_opset_supports(op_type: str, dtype: str, opset: int, supported: bool) -> None:
    assert template(dtype, opset=opset).supports(op_type) is supported


@pytest.mark.parametrize("first", ["site", "constant"])
def test_an_operator_without_the_type_is_warned_about_once(first: str) -> None:
    t = template("bfloat16", opset=12)
    y = t.x
    for _ in range(2):
        operands = (y, t.scalar(2.0, "two"))
        y = t.op("Div", *(operands if first == "site" else reversed(operands)))
    subgraph = t.export(y, ir_version=8)
    assert subgraph.warnings == ["ONNX has no Div for bfloat16 at opset 12, the model's own"]


def test_an_operator_of_another_type_is_not() -> None:
    t = template("bfloat16", opset=13)
    shape = t.op("Shape", t.x, dtype=TensorProto.INT64)
    assert shape.dtype == TensorProto.INT64
    assert t.export(shape, ir_version=8).warnings == []


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_a_per_channel_affine_is_one_batch_normalization(dtype: str) -> None:
    scale, shift = np.array([2.0, -1.0, 0.0, 0.5]), np.array([0.0, 1.0, -3.0, 0.25])
    t = template(dtype, opset=15)
    subgraph = t.export(t.per_channel_affine(t.x, scale, shift, "affine"), ir_version=8)
    (node,) = subgraph.nodes
    assert node.op_type == "BatchNormalization"
    values = [numpy_helper.to_array(tensor).astype(np.float64) for tensor in subgraph.initializers]
    gamma, beta, mean, variance = values
    eps = float(np.float32(attributes(node)["epsilon"]))
    assert eps >= 9.99e-6  # cuDNN takes no less than 1e-5
    rounding = {"float32": 1e-7, "float16": 1e-3, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(gamma / np.sqrt(variance + eps), scale, rtol=rounding)
    np.testing.assert_allclose(beta - mean, shift, rtol=rounding)


def test_a_template_can_be_given_any_weights_it_does_not_ask_for() -> None:
    t = template(weights={"unused": np.ones(3)})
    subgraph = t.export(t.sigmoid(t.x), ir_version=8)
    assert subgraph.initializers == []
    assert subgraph.stored == {}


def test_a_tensor_is_cast_once_however_often_it_is_read() -> None:
    """Into the statistics and out of them again."""
    t = Template(FeatureMap(4, 5, 6, "float16", 1), opset=17)
    with t.statistics():
        y = t.add(t.mul(t.x, t.x), t.x)
    subgraph = t.export(t.add(t.mul(t.x, y), y), ir_version=8)
    assert [node.op_type for node in subgraph.nodes] == ["Cast", "Mul", "Add", "Cast", "Mul", "Add"]
    assert [node.attribute[0].i for node in subgraph.nodes if node.op_type == "Cast"] == [
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    ]


@pytest.mark.parametrize(
    ("precision", "dtype", "within"),
    [
        *(("safe", "float16", "float32"), ("site", "float16", "float16"), ("fp32", "float16", "float32")),
        *(("fp16", "float32", "float32"), ("safe", "float64", "float64"), ("safe", "bfloat16", "float32")),
    ],
)
def test_statistics_are_in_the_type_that_the_precision_says(precision: str, dtype: str, within: str) -> None:
    t = Template(FeatureMap(4, 5, 6, dtype, 1), opset=17, precision=precision)
    outside = t.dtype
    with t.statistics():
        assert t.dtype == within
    assert t.dtype == outside
