"""What speaks against a place: gates, borders, images, predictions, constants, sums, old opsets; and what does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.selection.advice import Advice
from graphsurgery.selection.sites import SiteFinder
from tests.models import model, node, value, weight


def conv(x: str, y: str, w: str = "w8", **attributes: object) -> NodeProto:
    return node("Conv", [x, w], [y], f"n_{y}", **attributes)


def ints(name: str, *numbers: int) -> TensorProto:
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


WEIGHTS = [
    *(weight("w8", (8, 8, 1, 1)), weight("w5", (5, 8, 1, 1)), weight("w16", (16, 8, 1, 1)), weight("w1", (1, 8, 1, 1))),
    *(
        weight("from2", (1, 2, 7, 7)),
        weight("down", (4, 8, 1, 1)),
        weight("up", (8, 4, 1, 1)),
        weight("dw", (8, 1, 5, 5)),
    ),
    *(weight("stem", (8, 3, 3, 3)), weight("stem12", (8, 12, 3, 3)), weight("mean", (1, 3, 1, 1))),
    *(weight("norm", (8,)), weight("map", (1, 8, 16, 16)), weight("large", (1, 3, 3, 3)), weight("three", ())),
    *(ints("flat", 0, 8, -1), ints("flat5", 0, 5, -1), ints("borders", 0, 0, 1, 1, 0, 0, 1, 1), ints("one", 1)),
    *(ints("evens", 0, 0), ints("odds", 1, 1), ints("ends", 9999, 9999), ints("axes", 2, 3), ints("steps", 2, 2)),
    numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"),
    numpy_helper.from_array(np.array([1, 1, 0.5, 0.5], np.float32), "halved"),
    *(numpy_helper.from_array(np.float32(number), name) for name, number in {"zero": 0, "six": 6, "unit": 1}.items()),
]
STEM = [conv("x", "s0", "stem", strides=[2, 2], pads=[1, 1, 1, 1]), node("Relu", ["s0"], ["s"], "n_s")]
END = [conv("r", "e"), node("Relu", ["e"], ["y"], "n_y")]


def built(
    nodes: Sequence[NodeProto], *, ends: Sequence[NodeProto] = END, outputs: Sequence[str] = ("y",)
) -> ModelProto:
    """x -> s -> nodes -> r -> y."""
    return model([*STEM, *nodes, *ends], [value("x", (1, 3, 32, 32))], [value(o, None) for o in outputs], WEIGHTS)


def advice(made: ModelProto, tensor: str) -> Advice | None:
    """The advice on a tensor at which a block could be put; whatever it names instead is accepted, and advisable."""
    finder = SiteFinder(ModelFile.load(made))
    assert finder.find([f"tensor:{tensor}"])
    found = finder.adviser.advice(tensor)
    for name in found.instead if found is not None else ():
        (site,) = finder.find([name])
        assert finder.adviser.advice(site.tensor) is None
    return found


def told(made: ModelProto, tensor: str) -> tuple[str, str]:
    """A few words, and the first better place."""
    found = advice(made, tensor)
    assert found is not None, tensor
    return found.short, next(iter(found.instead), "")


# ---------------------------------------------------------------------- gates

CBAM = [
    node("ReduceMean", ["s"], ["mean_c"], "n_mean", axes=[1], keepdims=1),
    node("ReduceMax", ["s"], ["max_c"], "n_max", axes=[1], keepdims=1),
    node("Concat", ["mean_c", "max_c"], ["both"], "n_both", axis=1),
    conv("both", "c", "from2", pads=[3, 3, 3, 3]),
    node("Sigmoid", ["c"], ["g"], "n_g"),
    node("Mul", ["s", "g"], ["r"], "n_r"),
]
DEEP_GATE = [
    conv("s", "a", "down"),
    node("BatchNormalization", ["a", *("norm4",) * 4], ["b"], "n_b"),
    node("Relu", ["b"], ["c"], "n_c"),
    conv("c", "d", "up"),
    node("Add", ["d", "three"], ["e1"], "n_e1"),
    node("Clip", ["e1", "zero", "six"], ["f"], "n_f"),
    node("Div", ["f", "six"], ["g"], "n_g"),
    node("Mul", ["g", "s"], ["r"], "n_r"),
]
CONVOLVED_GATE = [
    conv("s", "a", "dw", group=8, pads=[2, 2, 2, 2]),
    conv("a", "b"),
    node("Sigmoid", ["b"], ["g"], "n_g"),
    node("Mul", ["g", "s"], ["r"], "n_r"),
]
RESIZED_GATE = [
    node("AveragePool", ["s"], ["a"], "n_a", kernel_shape=[2, 2], strides=[2, 2]),
    conv("a", "b", "w1"),
    node("Sigmoid", ["b"], ["c"], "n_c"),
    node("Resize", ["c", "", "twice"], ["g"], "n_g"),
    node("Mul", ["s", "g"], ["r"], "n_r"),
]
LINEAR_UNIT = [
    conv("s", "a", "w16"),
    node("Split", ["a"], ["u", "v"], "n_split", axis=1),
    node("Sigmoid", ["v"], ["g"], "n_g"),
    node("Mul", ["u", "g"], ["r"], "n_r"),
]


@pytest.mark.parametrize(
    ("nodes", "inside"),
    [
        (CBAM, ["mean_c", "max_c", "both", "c", "g"]),
        (DEEP_GATE, ["c", "d", "e1", "f", "g"]),
        (CONVOLVED_GATE, ["a", "b", "g"]),
        (RESIZED_GATE, ["a", "b", "c", "g"]),
        (LINEAR_UNIT, ["v", "g"]),
    ],
    ids=["CBAM's spatial branch", "SE of maps", "large kernel", "at half the size", "gated linear unit"],
)
def test_the_inside_of_a_gate_is_no_place(nodes: Sequence[NodeProto], inside: Sequence[str]) -> None:
    made = built(nodes)
    made.graph.initializer.append(weight("norm4", (4,)))
    for tensor in inside:
        short, better = told(made, tensor)
        assert (short, better) == ("inside a gate", "tensor:r") or better == "tensor:r", tensor
    assert advice(made, "s") is None
    assert advice(made, "r") is None


def test_a_product_of_two_branches_is_no_gate() -> None:
    """The star operation: both sides are features."""
    nodes = [conv("s", "a"), node("Clip", ["a", "zero", "six"], ["b"], "n_b"), conv("s", "c")]
    made = built([*nodes, node("Mul", ["b", "c"], ["r"], "n_r")])
    assert advice(made, "b") is None
    assert advice(made, "c") is None


def test_scores_that_are_multiplied_are_no_gate() -> None:
    """Class times objectness: the features of both are features."""
    nodes = [
        conv("s", "t"),
        node("Relu", ["t"], ["f"], "n_f"),
        conv("f", "p", "w5"),
        node("Sigmoid", ["p"], ["ps"], "n_ps"),
        conv("s", "q", "w1"),
        node("Sigmoid", ["q"], ["qs"], "n_qs"),
        node("Mul", ["ps", "qs"], ["y"], "n_y"),
    ]
    assert advice(built(nodes, ends=[]), "f") is None


# ---------------------------------------------------------------------- sums


@pytest.mark.parametrize("operator", ["Relu", "LeakyRelu", "HardSwish", "Elu", "Sigmoid"])
def test_a_residual_sum_and_its_activation(operator: str) -> None:
    made = built([conv("s", "a"), node("Add", ["s", "a"], ["b"], "n_b"), node(operator, ["b"], ["r"], "n_r")])
    assert told(made, "a") == ("before the sum", "tensor:r")
    assert told(made, "b") == ("before the activation", "tensor:r")
    assert advice(made, "r") is None


def test_a_sum_that_others_read_is_a_place() -> None:
    """A residual stream: normalised for the next layer, and added to."""
    norm = node("BatchNormalization", ["b", *("norm",) * 4], ["n"], "n_n")
    nodes = [conv("s", "a"), node("Add", ["s", "a"], ["b"], "n_b"), norm, conv("n", "c")]
    assert advice(built([*nodes, node("Add", ["b", "c"], ["r"], "n_r")]), "b") is None


def test_a_part_of_a_longer_sum() -> None:
    branches = [conv("s", "a"), conv("s", "b"), node("Add", ["a", "b"], ["c"], "n_c")]
    made = built([*branches, node("Add", ["c", "s"], ["r"], "n_r")])
    assert told(made, "c") == ("before the sum", "tensor:r")


def test_a_scale_and_its_shift() -> None:
    """A learnable affine block behind an activation is a part of the convolution."""
    made = built([node("Mul", ["s", "three"], ["a"], "n_a"), node("Add", ["a", "three"], ["r"], "n_r")])
    assert told(made, "a") == ("before the shift", "tensor:r")
    assert told(made, "s") == ("before the scale", "tensor:r")


# ---------------------------------------------------------------------- borders, images, constants


def test_a_padded_map() -> None:
    made = built(
        [node("Pad", ["s", "borders"], ["a"], "n_a"), node("MaxPool", ["a"], ["r"], "n_r", kernel_shape=[3, 3])]
    )
    short, better = told(made, "a")
    assert (short, better) in {("padded", "Conv[0]"), ("padded", "tensor:s")}


def test_a_map_that_a_convolution_pads() -> None:
    """The border is in the same block as the convolution that reads it."""
    made = built([node("Pad", ["s", "borders"], ["a"], "n_a"), conv("a", "b", "k3"), node("Relu", ["b"], ["r"], "n_r")])
    made.graph.initializer.append(weight("k3", (8, 8, 3, 3)))
    assert told(made, "a") == ("padded", "tensor:s")


FOCUS = [
    *(
        node("Slice", ["x", start, "ends", "axes", "steps"], [f"x_{start}"], f"n_{start}")
        for start in ("evens", "odds", "evens2", "odds2")
    ),
    node("Concat", ["x_evens", "x_odds", "x_evens2", "x_odds2"], ["p"], "n_p", axis=1),
    conv("p", "s0", "stem12", pads=[1, 1, 1, 1]),
]


@pytest.mark.parametrize(
    ("preparing", "tensors"),
    [
        ([node("Sub", ["x", "mean"], ["p"], "n_p")], ["x", "p"]),
        ([node("Sub", ["x", "mean"], ["q"], "n_q"), node("Div", ["q", "mean"], ["p"], "n_p")], ["x", "q", "p"]),
        ([node("Resize", ["x", "", "halved"], ["p"], "n_p")], ["x", "p"]),
        ([node("Pad", ["x", "borders"], ["p"], "n_p")], ["x", "p"]),
        (FOCUS, ["x", "x_evens", "p"]),
    ],
    ids=["mean", "mean and deviation", "resized", "padded", "Focus"],
)
def test_the_image_is_no_place(preparing: Sequence[NodeProto], tensors: Sequence[str]) -> None:
    nodes = list(preparing) if preparing is FOCUS else [*preparing, conv("p", "s0", "stem", pads=[1, 1, 1, 1])]
    more = [ints("evens2", 0, 1), ints("odds2", 1, 0)]
    made = model(
        [*nodes, node("Relu", ["s0"], ["r"], "n_r"), *END],
        [value("x", (1, 3, 32, 32))],
        [value("y", None)],
        [*WEIGHTS, *more],
    )
    for tensor in tensors:
        assert told(made, tensor) == ("the image", "tensor:r"), tensor
    assert advice(made, "r") is None


def test_an_input_that_is_a_map_is_a_place() -> None:
    """A head or a neck that was exported alone."""
    made = model(
        [conv("x", "e", "wide"), node("Relu", ["e"], ["y"], "n_y")], [value("x", (1, 64, 20, 20))], [value("y", None)]
    )
    made.graph.initializer.append(weight("wide", (8, 64, 1, 1)))
    assert advice(made, "x") is None


def test_what_is_the_same_for_every_image() -> None:
    """A map of weights, brought to the size of another one."""
    made = built(
        [
            node("Shape", ["s"], ["size"], "n_size"),
            node("Expand", ["map", "size"], ["grid"], "n_grid"),
            node("Add", ["s", "grid"], ["r"], "n_r"),
        ]
    )
    assert told(made, "grid")[0] == "the same for every image"


# ---------------------------------------------------------------------- predictions


@pytest.mark.parametrize(
    ("nodes", "last"),
    [
        ([conv("f", "p", "w5"), node("Reshape", ["p", "flat5"], ["y"], "n_y")], "p"),
        ([conv("f", "p", "w5"), node("Transpose", ["p"], ["y"], "n_y", perm=[0, 2, 3, 1])], "p"),
        ([conv("f", "y", "w5")], "y"),
        ([conv("f", "p", "w5"), node("Softmax", ["p"], ["y"], "n_y", axis=1)], "p"),
        ([conv("f", "p", "w5"), node("Resize", ["p", "", "twice"], ["y"], "n_y")], "p"),
        ([conv("f", "p", "w5"), node("Resize", ["p", "", "twice"], ["y"], "n_y")], "y"),
    ],
    ids=["boxes", "channels last", "as they are", "classes", "mask", "resized mask"],
)
def test_predictions_are_no_place(nodes: Sequence[NodeProto], last: str) -> None:
    made = built([conv("s", "t"), node("Relu", ["t"], ["f"], "n_f"), *nodes], ends=[])
    assert told(made, last) == ("predictions", "tensor:f")


def test_the_maps_of_a_feature_extractor_are_places() -> None:
    """Outputs without activation, as a feature pyramid gives them."""
    deeper = [node("MaxPool", ["s"], ["d"], "n_d", kernel_shape=[2, 2], strides=[2, 2]), conv("d", "z")]
    made = built([conv("s", "y"), *deeper], ends=[], outputs=["y", "z"])
    assert advice(made, "y") is None
    assert advice(made, "z") is None


# ---------------------------------------------------------------------- what cannot be written


def test_an_opset_that_is_too_old_is_said() -> None:
    made = model(
        [conv("x", "a", "stem"), node("Relu", ["a"], ["y"], "n_y")],
        [value("x", (1, 3, 32, 32))],
        [value("y", (1, 8, 30, 30))],
        WEIGHTS[8:9],
        opset=8,
    )
    del made.graph.initializer[:]
    made.graph.initializer.append(weight("stem", (8, 3, 3, 3)))
    found = advice(made, "y")
    assert found is not None
    assert found.short == "opset 8"
    assert found.instead == ()
    assert "opset 9 and later" in found.sentence


def test_every_rule_can_speak() -> None:
    """The better place is followed until nothing speaks against it: from a gate's convolution to the end of it all."""
    made = built([*CBAM[:-1], node("Mul", ["s", "g"], ["m"], "n_m"), helper.make_node("Relu", ["m"], ["r"])])
    assert told(made, "c") == ("inside a gate", "tensor:r")
