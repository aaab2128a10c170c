"""Every operator with a kink or a bound has a rival for each piece, which differs where the piece is reached alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from graphsurgery.runtime.session import session
from graphsurgery.verification.pieces import Piece, pieces

BELOW, BETWEEN, ABOVE = "values below its lower bound", "values between its bounds", "values above its upper bound"
POSITIVE, NEGATIVE = "positive values", "negative values"
SMALL = "values as small as its epsilon"
SIZE, VARIANCES = "the size of its result", "variances as small as its epsilon"
INPUT_0, INPUT_1 = (f"values for which input {place} decides" for place in (0, 1))


def block(body: str, opset: int = 17) -> onnx.ModelProto:
    """A block from x to y, both [4], with the constants that it may name."""
    constants = (
        "float low = {0.0}, float high = {1.0}, float[1] eps = {0.001}, float[1] slope = {0.1}, float half = {0.5}"
    )
    text = f'<ir_version: 8, opset_import: ["": {opset}]> block (float[4] x) => (float[4] y) <{constants}> {{ {body} }}'
    return onnx.parser.parse_model(text)


def output(model: onnx.ModelProto, values: list[float]) -> Any:
    (found,) = session(model.SerializeToString(), "cpu", optimise=False).run({"x": np.array(values, np.float32)})
    return found


def reached(model: onnx.ModelProto, values: list[float]) -> set[str]:
    """The pieces whose rivals differ on these values, in words without the operator."""
    found = set()
    for piece in pieces(model):
        onnx.checker.check_model(piece.rival(model))
        if not np.allclose(
            output(piece.rival(model), values), output(model, values), rtol=1e-5, atol=0, equal_nan=True
        ):
            found.add(piece.what.partition(": ")[2])
    return found


@pytest.mark.parametrize(
    ("body", "values", "which"),
    [
        ("y = Relu (x)", [1, 2, 3, 4], {POSITIVE}),
        ("y = Relu (x)", [-1, -2, -3, -4], {NEGATIVE}),
        ("y = LeakyRelu <alpha = 0.1> (x)", [1, 2, 3, 4], set()),
        ("y = LeakyRelu <alpha = 0.1> (x)", [-1, 2, 3, 4], {NEGATIVE}),
        ("y = PRelu (x, slope)", [-1, 2, 3, 4], {NEGATIVE}),
        ("y = Abs (x)", [1, 2, 3, 4], {POSITIVE}),
        ("y = Abs (x)", [-1, 2, 3, 4], {POSITIVE, NEGATIVE}),
        ("y = Round (x)", [1, 2, 3, 4], set()),
        ("y = Floor (x)", [1, 2.5, 3, 4], {"values that are not whole"}),
        ("y = Clip (x, low, high)", [0.1, 0.2, 0.3, 0.4], {BETWEEN}),
        ("y = Clip (x, low, high)", [-1, -2, -3, -4], {BELOW}),
        ("y = Clip (x, low, high)", [2, 3, 0.5, 4], {ABOVE, BETWEEN}),
        ("y = Clip (x, low)", [-2, -3, -0.5, -4], {BELOW}),
        ("y = HardSigmoid (x)", [-9, -8, -7, -6], {BELOW}),
        ("y = HardSigmoid (x)", [9, 8, 7, 6], {ABOVE}),
        ("y = HardSigmoid (x)", [0.5, 1, -1, -0.5], {BETWEEN}),
        ("y = HardSwish (x)", [0.5, 9, -9, -0.5], {BELOW, BETWEEN, ABOVE}),
        ("y = Max (x, half)", [1, 2, 3, 4], {INPUT_0}),
        ("y = Max (x, half)", [0, 2, 3, 4], {INPUT_0, INPUT_1}),
        ("y = Min (x, half)", [1, 2, 3, 4], {INPUT_1}),
        ("c = Greater (x, half) z = Neg (x) y = Where (c, z, x)", [1, 2, 3, 4], {"true conditions"}),
        ("c = Less (x, half) z = Neg (x) y = Where (c, z, x)", [-1, 2, 3, 4], {"true conditions", "false conditions"}),
        ("z = Add (x, eps) y = Sqrt (z)", [1e-3, 1, 2, 3], {SMALL}),
        ("z = Add (x, eps) y = Sqrt (z)", [1e6, 1e6, 1e6, 1e6], set()),
        ("z = Add (x, eps) y = Div (x, z)", [1e-3, 1, 2, 3], {SMALL}),
        ("z = Add (x, eps) y = Neg (z)", [1e-3, 1, 2, 3], set()),
        ("y = LayerNormalization (x, x)", [0, 1e-3, 2e-3, 3e-3], {VARIANCES}),
        ("y = LayerNormalization (x, x)", [0, 1e3, 2e3, 3e3], set()),
        ("m = ReduceMax (x) d = Sub (x, m) y = Exp (d)", [1, 1, 1, 1], {"values too large for an exponential"}),
        ("z = Div (x, half) y = LayerNormalization <epsilon = 0.1> (z, x)", [1, 2, 3, 4], {SIZE, VARIANCES}),
        ("z = Div (x, half) y = Neg (z)", [1, 2, 3, 4], set()),
        ("y = Sigmoid (x)", [1, 2, 3, 4], set()),
    ],
)
def test_each_piece(body: str, values: list[float], which: set[str]) -> None:
    assert reached(block(body), values) == which


def test_bounds_that_are_attributes() -> None:
    model = block("y = Clip <min = 0.0, max = 1.0> (x)", 10)
    assert reached(model, [-1, 2, 0.5, 0.1]) == {BELOW, BETWEEN, ABOVE}


def test_the_words_and_the_place() -> None:
    found = list(pieces(block("z = Relu (x) y = Sigmoid (z)")))
    assert [(piece.what, piece.output) for piece in found] == [
        ("Relu: negative values", "z"),
        ("Relu: positive values", "z"),
    ]
    assert all(isinstance(piece, Piece) for piece in found)


def test_a_rival_takes_the_weights_that_it_is_given() -> None:
    """The pieces are those of the operators, whatever the block computes with."""
    one, other = block("z = Mul (x, half) y = Relu (z)"), block("z = Mul (x, half) y = Relu (z)")
    (half,) = (tensor for tensor in other.graph.initializer if tensor.name == "half")
    half.CopyFrom(onnx.numpy_helper.from_array(np.float32(3.0), "half"))
    negative = next(iter(pieces(one)))
    assert output(negative.rival(other), [-1, 2, 3, 4]).tolist() == [-3, 6, 9, 12]


@pytest.mark.parametrize(("doubtful", "epsilon"), [(False, 0.02), (True, 0.011)])
def test_an_epsilon_that_may_be_another_is_looked_at_more_closely(doubtful: bool, epsilon: float) -> None:
    (piece,) = pieces(block("y = LayerNormalization <epsilon = 0.01> (x, x)"), doubtful=doubtful)
    ((attribute,),) = (node.attribute for node in piece.others)
    assert attribute.f == pytest.approx(epsilon)
