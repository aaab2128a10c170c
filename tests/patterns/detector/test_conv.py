"""Conv: every way in which exporters write a convolution, its normalisation and its activation."""

from __future__ import annotations

import re

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
    "gelu, half on Erf": "d = Mul(c, k) e = Erf(d) f = Mul(e, k) a = Add(f, k) y = Mul(c, a)",
    "gelu by Tanh as torch writes it": "q = Mul(c, c) u = Mul(c, q) v = Mul(k, u) i = Add(c, v) j = Mul(k, i) "
    "t = Tanh(j) a = Add(t, k) m = Mul(c, a) y = Mul(k, m)",
    "gelu by Tanh and Pow, half on the input": "h = Mul(c, k) u = Pow(c, k) v = Mul(u, k) i = Add(c, v) j = Mul(i, k) "
    "t = Tanh(j) a = Add(t, k) y = Mul(h, a)",
    "gelu by Tanh, x taken out": "h = Mul(k, c) b = Mul(k, c) q = Mul(c, k) u = Mul(q, c) v = Add(u, k) j = Mul(b, v) "
    "t = Tanh(j) a = Add(t, k) y = Mul(h, a)",
    "gelu by Sigmoid": "u = Pow(c, k) v = Mul(u, k) i = Add(c, v) j = Mul(i, k) g = Sigmoid(j) y = Mul(c, g)",
    "quick gelu": "a = Mul(c, k) g = Sigmoid(a) y = Mul(c, g)",
    "silu by Exp": "n = Neg(c) e = Exp(n) a = Add(e, k) y = Div(c, a)",
    "silu by Exp, its reciprocal": "n = Neg(c) e = Exp(n) a = Add(k, e) r = Reciprocal(a) y = Mul(c, r)",
    "silu by Exp, its quotient": "n = Mul(c, k) e = Exp(n) a = Add(k, e) r = Div(k, a) y = Mul(r, c)",
    "hardswish by Clip of a sixth": "d = Div(c, k) a = Add(d, k) l = Clip(a, k, k) y = Mul(c, l)",
    "softplus": "y = Softplus(c)",
    "softplus of a steepness": "a = Mul(c, k) p = Softplus(a) y = Div(p, k)",
    "softplus by Exp and Log": "e = Exp(c) a = Add(e, k) y = Log(a)",
    "softplus of the dynamo exporter": "p = Softplus(c) g = Greater(c, k) y = Where(g, c, p)",
    "softsign": "b = Abs(c) a = Add(b, k) y = Div(c, a)",
    "relu by Max": "y = Max(c, k)",
    "relu6 by Max and Min": "a = Max(c, k) y = Min(a, k)",
    "leaky by Max": "a = Mul(c, k) y = Max(a, c)",
}
NAMES = {"leaky": "leakyrelu", "relu6": "clip", "quick": "silu"}
"""The first word of a form -> the activation that facts tell, where they are not the same."""


@pytest.mark.parametrize("form", ACTIVATIONS)
def test_activations(form: str) -> None:
    tree = blocks(f"{CONV} {ACTIVATIONS[form]}", **W, k=())
    assert types(tree) == ["Conv"]
    assert tree.blocks[0].output == "y"
    assert len(tree.blocks[0].nodes) == 1 + ACTIVATIONS[form].count("=") - ACTIVATIONS[form].count("<")
    name = re.split(r"\W", form)[0]
    assert tree.blocks[0].facts["activation"] == NAMES.get(name, name)


@pytest.mark.parametrize("form", [form for form in ACTIVATIONS if " k" in ACTIVATIONS[form]])
def test_constants_as_nodes(form: str) -> None:
    body = f"k = Constant <value = float {{1.5}}> () {CONV} {ACTIVATIONS[form]}"
    tree = blocks(body, **W)
    assert (types(tree), tree.blocks[0].output) == (["Conv"], "y")


@pytest.mark.parametrize("form", ACTIVATIONS)
def test_a_bottleneck_of_any_activation(form: str) -> None:
    convolutions = (
        f"c{i} = Conv <pads = [1,1,1,1]> ({source}, w) " + re.sub(r"\b(?!k\b)[a-z]\b", rf"\g<0>{i}", ACTIVATIONS[form])
        for i, source in ((1, "x"), (2, "y1"))
    )
    assert types(blocks(f"{' '.join(convolutions)} y = Add(x, y2)", **W, k=())) == ["Bottleneck"]


@pytest.mark.parametrize(
    "body",
    [
        "l = Mul(c, s) g = Sigmoid(l) y = Mul(c, g)",  # a factor for each channel is a layer of its own
        "e = Exp(c) y = Mul(e, k)",  # the size of a box
        "g = Sigmoid(c) d = Mul(g, k) y = Pow(d, k)",
    ],
)
def test_what_only_looks_like_an_activation(body: str) -> None:
    assert blocks(f"{CONV} {body}", **W, k=(), s=(1, 8, 1, 1)).of_type("Conv")[0].facts["activation"] is None


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
