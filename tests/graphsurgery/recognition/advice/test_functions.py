"""What a graph writes out as single operators is one place, whatever its author and exporter made of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.selection.sites import SiteFinder
from tests import models
from tests.models import model, node, value, weight

_NUMBERS = {
    "zero": 0.0,
    "one": 1.0,
    "half": 0.5,
    "three": 3.0,
    "six": 6.0,
    "sixth": 1 / 6,
    "two": 2.0,
    "cube": 3.0,
    "root2": 2**0.5,
    "c1": 0.044715,
    "c2": 0.7978845,
    "beta": 1.5,
    "steep": 1.702,
    "eps": 1e-5,
}
_PER_CHANNEL = ("gamma", "shift", "slope")
Steps = str
"""``"Add a three b; Clip b zero six c"``: operator, what it reads, what it gives; it begins at a and ends at r"""

ACTIVATIONS: dict[str, Steps] = {
    "hard-swish, gate scaled": "Add a three b; Clip b zero six c; Div c six d; Mul a d r",
    "hard-swish, product scaled": "Add a three b; Clip b zero six c; Mul a c d; Div d six r",
    "hard-swish, map scaled": "Add a three b; Clip b zero six c; Mul a sixth d; Mul d c r",
    "hard-swish by Max and Min": "Add a three b; Max b zero c; Min c six d; Mul d sixth e; Mul a e r",
    "hard-swish by hard-sigmoid": "HardSigmoid a b; Mul a b r",
    "hard-sigmoid": "Add a three b; Clip b zero six c; Div c six r",
    "SiLU": "Sigmoid a b; Mul a b r",
    "SiLU by exp": "Neg a b; Exp b c; Add c one d; Div a d r",
    "SiLU with beta": "Mul a beta b; Sigmoid b c; Mul a c r",
    "QuickGELU": "Mul a steep b; Sigmoid b c; Mul c a r",
    "Mish": "Softplus a b; Tanh b c; Mul a c r",
    "Mish by log": "Exp a b; Add b one c; Log c d; Tanh d e; Mul a e r",
    "GELU, half at the end": "Div a root2 b; Erf b c; Add c one d; Mul a d e; Mul e half r",
    "GELU, half first": "Mul a half b; Div a root2 c; Erf c d; Add d one e; Mul b e r",
    "GELU by tanh": "Pow a cube b; Mul b c1 c; Add a c d; Mul d c2 e; Tanh e f; Add f one g; Mul a half h; Mul h g r",
    "GELU by tanh, multiplied out": (
        "Mul a a b; Mul b c1 c; Add c one d; Mul a c2 e; Mul e d f; Tanh f g; Add g one h; Mul h half i; Mul a i r"
    ),
    "PReLU by two ReLU": "Relu a b; Neg a c; Relu c d; Mul d slope e; Sub b e r",
    "PReLU by abs": "Relu a b; Abs a c; Sub a c d; Mul d slope e; Mul e half f; Add b f r",
    "PReLU by Where": "Greater a zero b; Mul a slope c; Where b a c r",
    "softsign": "Abs a b; Add b one c; Div a c r",
}
NORMALISATIONS: dict[str, Steps] = {
    "LayerNorm, channels first": (
        "ReduceMean.1 a b; Sub a b c; Pow c two d; ReduceMean.1 d e; Add e eps f; Sqrt f g; Div c g h; Mul h gamma i; "
        "Add i shift r"
    ),
    "LayerNorm, variance apart": (
        "ReduceMean.1 a b; Sub a b c; Sub a b d; Mul d d e; ReduceMean.1 e f; Add f eps g; Sqrt g h; Reciprocal h i; "
        "Mul c i j; Mul j gamma k; Add k shift r"
    ),
    "LayerNorm in one operator": "Transpose.0231 a b; LayerNorm b c; Transpose.0312 c r",
    "GroupNorm": "Reshape a groups b; InstanceNorm b c; Reshape c map d; Mul d gamma e; Add e shift r",
    "InstanceNorm": (
        "ReduceMean.23 a b; Sub a b c; Mul c c d; ReduceMean.23 d e; Add e eps f; Sqrt f g; Div c g h; Mul h gamma i; "
        "Add i shift r"
    ),
    "RMSNorm": "Pow a two b; ReduceMean.1 b c; Add c eps d; Sqrt d e; Div a e f; Mul f gamma r",
    "L2 norm": "ReduceL2.1 a b; Clip b eps none c; Div a c r",
    "L2 norm by squares": "Mul a a b; ReduceSum.1 b c; Sqrt c d; Add d eps e; Div a e f; Mul f gamma r",
    "softmax": "ReduceMax.1 a b; Sub a b c; Exp c d; ReduceSum.1 d e; Div d e r",
    "SimAM": (
        "ReduceMean.23 a b; Sub a b c; Pow c two d; ReduceSum.23 d e; Div e six f; Add f eps g; Div d g h; "
        "Add h half i; Sigmoid i j; Mul a j r"
    ),
}
FUNCTIONS = ACTIVATIONS | NORMALISATIONS
AXES = {"1": [1], "23": [2, 3]}


def written(steps: Steps) -> list[onnx.NodeProto]:
    """The nodes that a text stands for."""
    made = []
    for step in steps.split("; "):
        kind, *names = step.split()
        op, _, given = kind.partition(".")
        inputs, output = ["" if name == "none" else name for name in names[:-1]], names[-1]
        attributes: dict[str, object] = {}
        if op == "Transpose":
            attributes["perm"] = [int(axis) for axis in given]
        elif op.startswith("Reduce"):
            attributes |= {"keepdims": 1}
            if op == "ReduceSum":
                inputs.append(f"axes{given}")
            else:
                attributes["axes"] = AXES[given]
        elif op == "LayerNorm":
            op, inputs = "LayerNormalization", [*inputs, "line", "line0"]
        elif op == "InstanceNorm":
            op, inputs = "InstanceNormalization", [*inputs, "pair", "pair0"]
        made.append(node(op, inputs, [output], f"n_{output}", **attributes))
    return made


def constants() -> list[onnx.TensorProto]:
    shapes = {"groups": [1, 2, -1], "map": [1, 8, 16, 16], "axes1": [1], "axes23": [2, 3]}
    return [
        *(numpy_helper.from_array(np.float32(number), name) for name, number in _NUMBERS.items()),
        *(weight(name, (1, 8, 1, 1)) for name in _PER_CHANNEL),
        *(weight(name, (8,)) for name in ("line", "line0")),
        *(weight(name, (2,)) for name in ("pair", "pair0")),
        *(numpy_helper.from_array(np.array(sizes, np.int64), name) for name, sizes in shapes.items()),
    ]


def detector(nodes: list[onnx.NodeProto], start: str) -> SiteFinder:
    """x -> convolution, something -> a -> nodes -> r -> convolution -> y."""
    before = {
        "pool": [node("MaxPool", ["s"], ["a"], "n_a", kernel_shape=[1, 1])],
        "conv": [node("Conv", ["s", "w"], ["a"], "n_a")],
        "sum": [
            node("Relu", ["s"], ["t"], "n_t"),
            node("Conv", ["t", "w"], ["u"], "n_u"),
            node("Add", ["t", "u"], ["a"], "n_a"),
        ],
    }[start]
    made = model(
        [
            node("Conv", ["x", "stem"], ["s"], "n_s", strides=[2, 2], pads=[1, 1, 1, 1]),
            *before,
            *nodes,
            node("Conv", ["r", "w"], ["y"], "n_y"),
        ],
        [value("x", (1, 3, 32, 32))],
        [value("y", (1, 8, 16, 16))],
        [weight("stem", (8, 3, 3, 3)), weight("w", (8, 8, 1, 1)), *constants()],
    )
    onnx.checker.check_model(made)
    return SiteFinder(ModelFile.load(made))


@pytest.mark.parametrize("start", ["pool", "conv", "sum"])
@pytest.mark.parametrize("steps", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_the_inside_is_no_place_and_the_end_is_named(steps: Steps, start: str) -> None:
    finder = detector(nodes := written(steps), start)
    inside = [n.output[0] for n in nodes if n.output[0] != "r" and finder.is_map(n.output[0])]
    assert inside or "one operator" in steps or "HardSigmoid" in steps or "Transpose" in steps
    for tensor in inside:
        advice = finder.adviser.advice(tensor)
        assert advice is not None, tensor
        (better,) = finder.find(advice.instead)
        assert better.tensor in (["r", "a"] if advice.short == "not a map" else ["r"]), (tensor, advice.sentence)
        assert f"use {advice.instead[0]}" in advice.sentence
    assert finder.adviser.advice("r") is None


@pytest.mark.parametrize("steps", ACTIVATIONS.values(), ids=ACTIVATIONS.keys())
def test_a_sum_and_its_activation_belong_together(steps: Steps) -> None:
    advice = detector(written(steps), "sum").adviser.advice("a")
    assert advice is not None
    assert advice.short == "before the activation"
    assert "use tensor:r to insert behind the activation" in advice.sentence


@pytest.mark.parametrize("steps", NORMALISATIONS.values(), ids=NORMALISATIONS.keys())
def test_a_sum_in_front_of_a_normalisation_is_a_place(steps: Steps) -> None:
    """The end of a stage of ConvNeXt, of which the next one normalises first."""
    assert detector(written(steps), "sum").adviser.advice("a") is None


@pytest.mark.parametrize(
    "steps",
    [
        "Relu a b; Conv b w c; Add a c r",
        "Sigmoid a b; Conv b w c; Mul c b r",
        "Relu a b; MaxPool b c; Add b c r",
    ],
)
def test_what_else_is_computed_with_is_no_function(steps: Steps) -> None:
    """Convolutions and poolings look beyond a position; what they give has a place of its own."""
    nodes = written(steps)
    for each in nodes:
        if each.op_type == "MaxPool":
            each.attribute.append(onnx.helper.make_attribute("kernel_shape", [1, 1]))
    assert detector(nodes, "pool").adviser.advice("b") is None


def test_a_shared_inside_is_no_inside() -> None:
    """What something else reads as well is not between the beginning and the end alone."""
    nodes = written("Relu a b; Neg a c; Add b c d; Conv b w e; Add d e r")
    assert detector(nodes, "pool").adviser.advice("b") is None


def test_the_field_case_names_the_tensor() -> None:
    """A module path that stands for the whole model is no hint."""
    made = models.model(
        [
            node("Conv", ["x", "stem"], ["s"], "net/c1", pads=[1, 1, 1, 1]),
            node("Sigmoid", ["s"], ["g"], "net/act/Sigmoid"),
            node("Mul", ["s", "g"], ["r"], "net/act/mul"),
            node("Conv", ["r", "w"], ["t"], "net/c2"),
            node("Conv", ["r", "w"], ["y"], "net/c3"),
        ],
        [value("x", (1, 3, 32, 32))],
        [value("y", (1, 8, 32, 32)), value("t", (1, 8, 32, 32))],
        [weight("stem", (8, 3, 3, 3)), weight("w", (8, 8, 1, 1))],
    )
    finder = SiteFinder(ModelFile.load(made))
    (site,) = finder.find(["tensor:s"])
    (said,) = site.warnings
    assert said.endswith("; use tensor:r to insert behind the activation")
