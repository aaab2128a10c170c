"""The evaluator in float64 gives what onnx.reference gives, for each operator and each of its attributes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from tests.graphsurgery.verification.evaluation import APPROXIMATED, OPERATORS, Evaluator
from tests.patterns.attention.evaluators import GridSample

OTHERS = (
    "double[4] c4 = {1.5, -0.5, 2, 0.25}, double[4] d4 = {0.5, 1, -1, 0}, double[4] e4 = {1, 2, 0.5, 3}, "
    "double low = {-0.5}, double high = {0.7}, double[1,4,1,1] c = {2, -1, 0.5, 3}, "
    "int64[2] spatial = {2, 3}, int64[1] one = {1}, int64[1] three = {3}, int64[1] minus = {-1}, int64[1] two = {2}, "
    "int64[3] flat = {0, 4, -1}, int64[8] pads = {0, 0, 1, 2, 0, 0, 0, 1}, int64[2] halves = {1, 3}, "
    "int64[4] order = {3, 1, 0, 2}, double[1,1,1,1] zero = {0}, int64[1,2,1] chosen = {3, 1}, "
    "double[1,2,3,2] grid = {-1, -1, 0.3, 0.1, 1, 0.9, -0.4, 1.3, 0.7, -0.2, 0, 0}"
)
SINGLE = 6e-8
"""onnx.reference gives Erf in float32 only."""
ONE_INPUT = ("Identity", "Sigmoid", "Tanh", "Relu", "Abs", "Neg", "Exp", "Erf", "Softplus", "HardSigmoid")
TWO_INPUTS = ("Add", "Sub", "Mul", "Div", "Max", "Min")
BODIES = [
    *(f"y = {each} (x)" for each in ONE_INPUT),
    *(f"y = {each} (x, c)" for each in TWO_INPUTS),
    "z = Exp (x) y = Sqrt (z)",
    "z = Exp (x) y = Log (z)",
    "y = HardSigmoid <alpha = 0.1667, beta = 0.4> (x)",
    "y = Clip (x, low, high)",
    "y = Clip (x, , high)",
    "y = Clip (x, low)",
    *(f"y = {each} <axis = 1> (x)" for each in ("Softmax", "LogSoftmax", "Hardmax")),
    "y = Softmax (x)",
    *(f"y = {each} <axes = [2, 3], keepdims = 1> (x)" for each in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2")),
    "z = ReduceMean <axes = [3], keepdims = 0> (x) y = Unsqueeze (z, three)",
    "y = ReduceSum <keepdims = 1> (x, spatial)",
    "z = ReduceMean <axes = [3]> (x) s = Squeeze (z, three) y = Unsqueeze (s, minus)",
    "y = GlobalAveragePool (x)",
    "y = GlobalMaxPool (x)",
    *(
        f"y = {each} <kernel_shape = [3, 2], pads = [1, 0, 1, 1], strides = [2, 1]> (x)"
        for each in ("AveragePool", "MaxPool")
    ),
    "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)",
    "y = Conv <kernel_shape = [1, 3], pads = [0, 2, 0, 1], dilations = [1, 2], group = 4> (x, k)",
    "y = Conv <strides = [2, 1], group = 4> (x, k, c4)",
    "y = InstanceNormalization <epsilon = 0.01> (x, c4, d4)",
    "y = BatchNormalization <epsilon = 0.01> (x, c4, d4, d4, e4)",
    "t = Transpose <perm = [0, 2, 3, 1]> (x) y = LayerNormalization <epsilon = 0.01> (t, c4, d4)",
    "t = Transpose <perm = [0, 2, 3, 1]> (x) y = LayerNormalization <axis = -1> (t, c4)",
    "r = Reshape (x, flat) t = Transpose <perm = [0, 2, 1]> (r) m = MatMul (r, t) y = Unsqueeze (m, one)",
    "y = Concat <axis = 1> (x, x, c3)",
    "y = Slice (x, one, minus, two)",
    "y = Slice (x, minus, one, three, minus)",
    "y = Pad (x, pads)",
    "y = Gather <axis = 1> (x, order)",
    "a, b = Split <axis = 1> (x, halves) y = Concat <axis = 1> (b, a)",
    "y, places = TopK <axis = 1> (x, two)",
    "y = GatherND <batch_dims = 1> (x, chosen)",
    'y = GridSample <mode = "bilinear", padding_mode = "zeros", align_corners = 1> (x, grid)',
]


def model(body: str) -> onnx.ModelProto:
    kernel = "double[4,1,1,3] k = {1, 2, 3, -1, 0.5, 2, 0.1, -2, 1, 1, 1, 0}, double[1,2,5,6] c3 = {%s}"
    constants = f"{OTHERS}, {kernel % ', '.join(str(i / 7) for i in range(60))}"
    header = '<ir_version: 8, opset_import: ["": 17]> block (double[1,4,5,6] x) => (double[n,a,b,c] y)'
    return onnx.parser.parse_model(f"{header} <{constants}> {{ {body} }}")


@pytest.mark.parametrize("body", BODIES)
def test_each_operator(body: str) -> None:
    x = 2 * np.random.default_rng(0).standard_normal((1, 4, 5, 6))
    block = model(body)
    (wanted,) = ReferenceEvaluator(block, new_ops=[GridSample]).run(None, {"x": x})  # type: ignore[misc]
    found = Evaluator(block).run(x)
    assert found.shape == wanted.shape
    exact = SINGLE if "Erf" in body else 1e-12
    assert np.abs(found - wanted).max() <= exact * max(1.0, np.abs(wanted).max())


def test_each_is_among_them() -> None:
    used = {node.op_type for body in BODIES for node in model(body).graph.node}
    assert set(OPERATORS) <= used


def test_other_weights() -> None:
    block = model("y = Mul (x, c)")
    assert Evaluator(block).run(np.ones((1, 4, 5, 6)), {"c": np.full((1, 4, 1, 1), 7.0)}).max() == 7.0


def test_in_float32_it_is_as_far_off_as_onnxruntime_may_be() -> None:
    x = np.linspace(-5, 5, 120).reshape(1, 4, 5, 6)
    for op_type, error in APPROXIMATED.items():
        block = model(f"y = {op_type} (x)")
        apart = np.abs(Evaluator(block, torch.float32).run(x) - Evaluator(block).run(x))
        assert error <= apart.max() <= 2 * error
