"""Conv: every way in which exporters write a convolution, its normalisation and its activation."""

from __future__ import annotations

import pytest

from tests.patterns.detector.graphs import blocks, types

W = {"w": (8, 8, 3, 3)}
CHANNELS = {"s": (8,), "b": (8,), "m": (8,), "v": (8,)}
CONV = "c = Conv <pads = [1,1,1,1]> (x, w)"
ACTIVATIONS = {
    "silu": "g = Sigmoid(c) y = Mul(c, g)",
    "silu, gate first": "g = Sigmoid(c) y = Mul(g, c)",
    "silu of onnxruntime": "y = com.microsoft.QuickGelu <alpha = 1.0> (c)",
    "relu": "y = Relu(c)",
    "relu6": "y = Clip(c, k, k)",
    "leaky": "y = LeakyRelu(c)",
    "prelu": "y = PRelu(c, k)",
    "hardswish": "y = HardSwish(c)",
    "hardswish by a hard sigmoid": "g = HardSigmoid(c) y = Mul(c, g)",
    "hardswish by Clip, sixth on the gate": "a = Add(c, k) l = Clip(a, k, k) d = Div(l, k) y = Mul(c, d)",
    "hardswish by Clip, sixth at the end": "a = Add(c, k) l = Clip(a, k, k) d = Mul(c, l) y = Div(d, k)",
    "mish": "p = Softplus(c) t = Tanh(p) y = Mul(c, t)",
    "mish by Exp and Log": "e = Exp(c) a = Add(e, k) p = Log(a) t = Tanh(p) y = Mul(c, t)",
    "gelu, half at the end": "d = Div(c, k) e = Erf(d) a = Add(e, k) p = Mul(c, a) y = Mul(p, k)",
    "gelu, half on the gate": "d = Div(c, k) e = Erf(d) a = Add(e, k) h = Mul(a, k) y = Mul(c, h)",
    "gelu, half on the input": "d = Div(c, k) e = Erf(d) a = Add(e, k) h = Mul(c, k) y = Mul(h, a)",
}


@pytest.mark.parametrize("form", ACTIVATIONS)
def test_activations(form: str) -> None:
    tree = blocks(f"{CONV} {ACTIVATIONS[form]}", **W, k=())
    assert types(tree) == ["Conv"]
    assert tree.blocks[0].output == "y"
    assert len(tree.blocks[0].nodes) == 1 + ACTIVATIONS[form].count("=") - ACTIVATIONS[form].count("<")
    assert tree.blocks[0].facts["activation"] is not None


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("normalised", "n = BatchNormalization(c, s, b, m, v) y = Relu(n)"),
        ("bias beside it", "n = Add(c, k) y = Relu(n)"),
        ("scale and shift", "t = Mul(c, k) n = Add(t, k) y = Relu(n)"),
        ("without activation", "y = BatchNormalization(c, s, b, m, v)"),
        ("cast in between", "h = Cast <to = 10> (c) n = Cast <to = 1> (h) y = Relu(n)"),
    ],
)
def test_normalisation(form: str, body: str) -> None:
    tree = blocks(f"{CONV} {body}", **W, **CHANNELS, k=())
    assert types(tree) == ["Conv"], form
    assert tree.blocks[0].output == "y"
    assert (tree.blocks[0].facts["activation"] is None) == (form == "without activation")


def test_padding_of_its_own_belongs_to_the_convolution() -> None:
    assert len(blocks("p = Pad(x, k) c = Conv(p, w) y = Relu(c)", **W, k=(8,)).blocks[0].nodes) == 3


def test_an_activation_that_others_bypass_is_not_part_of_it() -> None:
    tree = blocks(f"{CONV} g = Sigmoid(c) m = Mul(c, g) y = Add(m, c)", **W)
    assert [block.output for block in tree.of_type("Conv")] == ["c"]


def test_a_gate_is_no_activation() -> None:
    assert blocks(f"{CONV} y = Sigmoid(c)", **W).of_type("Conv")[0].output == "c"


def test_facts() -> None:
    conv = blocks("c = Conv <pads = [1,1,1,1], strides = [2,2], group = 2> (x, w) y = Relu(c)", w=(16, 4, 3, 3)).blocks[
        0
    ]
    expected = {"kernel": (3, 3), "stride": (2, 2), "groups": 2, "channels_in": 8, "channels_out": 16}
    assert {key: conv.facts[key] for key in expected} == expected


def test_depthwise() -> None:
    assert types(blocks("c = Conv <pads = [1,1,1,1], group = 8> (x, w) y = Relu(c)", w=(8, 1, 3, 3))) == ["DWConv"]


def test_a_convolution_of_rows_of_tokens_is_none() -> None:
    tree = blocks("t = Reshape(x, k) c = Conv(t, w) y = Unsqueeze(c, a)", w=(8, 8, 1), k=(3,), a=(1,))
    assert types(tree) == []
