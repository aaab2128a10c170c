"""Strides, from operators and from shapes."""

from __future__ import annotations

import pytest

from graphsurgery.graphindex import GraphIndex
from graphsurgery.modelfile import ModelFile
from graphsurgery.recognition.plane import Plane
from graphsurgery.recognition.view import View
from graphsurgery.shapes import ShapeTable
from tests.patterns.detector.graphs import graph

CONV = "c = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w)"


def plane(body: str, *, shapes: bool = True, **weights: tuple[int, ...]) -> Plane:
    index = GraphIndex(ModelFile.load(graph(body, **weights)))
    return Plane(View(index), ShapeTable(index) if shapes else None)


@pytest.mark.parametrize("shapes", [True, False])
@pytest.mark.parametrize(
    ("body", "stride"),
    [
        ("y = Relu(c)", 2),
        ("y = MaxPool <kernel_shape = [2,2], strides = [2,2]> (c)", 4),
        ("y = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (c)", 2),
        ("y = Concat <axis = 1> (c, c)", 2),
        ("y = ConvTranspose <strides = [2,2], kernel_shape = [2,2]> (c, t)", 1),
        ("a, b = Split <axis = 1, num_outputs = 2> (c) y = Relu(b)", 2),
        ("r = Reshape(c, to) y = Conv(r, p)", 2),
        ("g = GlobalAveragePool(c) y = Mul(c, g)", 2),
    ],
)
def test_stride(body: str, stride: int, shapes: bool) -> None:
    weights = {"w": (8, 8, 3, 3), "t": (8, 8, 2, 2), "p": (8, 8, 1, 1), "to": (4,)}
    found = plane(f"{CONV} {body}", shapes=False, **weights)
    assert found.stride("y") == stride
    assert found.is_in("y")


@pytest.mark.parametrize(
    "body",
    [
        "y = Reshape(c, to)",
        "y = Transpose <perm = [0,2,3,1]> (c)",
        "y = GlobalAveragePool(c)",
        "g = ReduceMean <keepdims = 1> (c) y = Sigmoid(g)",
        "y = Concat <axis = 2> (c, c)",
        "d = Relu(x) r = Reshape(c, to) s = Reshape(d, to) z = Concat <axis = 2> (r, s) y = Conv(z, p)",
    ],
)
def test_off_the_plane(body: str) -> None:
    found = plane(f"{CONV} {body}", shapes=False, w=(8, 8, 3, 3), p=(8, 8, 1, 1), to=(4,))
    assert not found.is_in("y")
    assert found.stride("y") is None


def test_two_strides_do_not_mix() -> None:
    assert plane(f"{CONV} y = Concat <axis = 1> (c, x)", shapes=False, w=(8, 8, 3, 3)).stride("y") is None


def test_a_map_of_slices_in_steps() -> None:
    model = graph(
        "k0 = Constant <value_ints = [0]> () e = Constant <value_ints = [99]> () h = Constant <value_ints = [2]> () "
        "v = Constant <value_ints = [3]> () r = Slice(x, k0, e, h, h) y = Slice(r, k0, e, v, h)"
    )
    for node in model.graph.node[:4]:  # as initializers, as exporters have them
        numbers = node.attribute[0].ints
        model.graph.initializer.add(name=node.output[0], data_type=7, dims=[len(numbers)], int64_data=numbers)
    del model.graph.node[:4]
    index = GraphIndex(ModelFile.load(model))
    assert Plane(View(index)).stride("y") == 2
