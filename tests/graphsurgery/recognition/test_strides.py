"""Strides, from operators and from shapes."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from graphsurgery.graph.index import GraphIndex
from graphsurgery.graph.shapes import ShapeTable
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.recognition.graph_view import View
from graphsurgery.recognition.strides import Strides
from tests.patterns.detector.graphs import graph

CONV = "c = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w)"


def plane(body: str, *, shapes: bool = True, size: int = 64, **weights: tuple[int, ...]) -> Strides:
    index = GraphIndex(ModelFile.load(graph(body, size=size, **weights)))
    return Strides(View(index), ShapeTable(index) if shapes else None)


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
        ("y = SpaceToDepth <blocksize = 2> (c)", 4),
        ("y = DepthToSpace <blocksize = 2> (c)", 1),
        ("i = Constant <value = int64[2] {1, 0}> () y = Gather <axis = 1> (c, i)", 2),
        ("a = Constant <value = int64[1] {1}> () y = ReduceMean(c, a)", 2),
        ("s = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> () y = Resize(c, , s)", 1),
        ("s = Shape(x) r = Resize(c, , , s) y = Add(r, x)", 1),
        ("t = Reshape(c, to) s = Shape(c) y = Reshape(t, s)", 2),
        ("g = Reshape(c, to) t = Transpose <perm = [0, 2, 1, 3, 4]> (g) y = Reshape(t, to)", 2),  # a channel shuffle
    ],
)
def test_stride(body: str, stride: int, shapes: bool) -> None:
    weights = {"w": (8, 8, 3, 3), "t": (8, 8, 2, 2), "p": (8, 8, 1, 1), "to": (4,)}
    found = plane(f"{CONV} {body}", shapes=shapes, **weights)
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
        "i = Constant <value = int64[2] {1, 0}> () y = Gather <axis = 2> (c, i)",
        "a = Constant <value = int64[2] {2, 3}> () y = ReduceMean(c, a)",
        "g = GlobalAveragePool(c) s = Shape(c) y = Reshape(g, s)",
        "y = Conv(c, w5)",
        "y = Add(c, x)",
        "d = Relu(x) r = Reshape(c, to) s = Reshape(d, to) z = Concat <axis = 2> (r, s) y = Conv(z, p)",
    ],
)
def test_off_the_plane(body: str) -> None:
    found = plane(f"{CONV} {body}", shapes=False, w=(8, 8, 3, 3), p=(8, 8, 1, 1), to=(4,), w5=(8, 8, 1, 1, 1))
    assert not found.is_in("y")
    assert found.stride("y") is None


@pytest.mark.parametrize(("sizes", "stride"), [("1, 32, 32, 32", 2), ("1, 16, 32, 64", None), ("1, 8, 4096, 1", None)])
def test_an_image_that_is_reshaped_to_a_smaller_one(sizes: str, stride: int | None) -> None:
    body = f"to = Constant <value = int64[4] {{{sizes}}}> () r = Reshape(x, to) y = Conv(r, p)"
    assert plane(body, p=(8, int(sizes.split(", ")[1]), 1, 1)).stride("y") == stride


def test_an_image_that_is_reshaped_to_a_third_is_no_map() -> None:
    body = "to = Constant <value = int64[4] {1, 72, 32, 32}> () r = Reshape(x, to) y = Conv(r, p)"
    assert plane(body, size=96, p=(8, 72, 1, 1)).stride("y") is None


def test_a_size_that_is_rounded_up_is_that_of_a_map() -> None:
    body = "c = Conv <pads = [1,1,1,1], strides = [16,16]> (x, w) t = Transpose <perm = [0,2,3,1]> (c)"
    found = plane(f"{body} l = Relu(t) y = Transpose <perm = [0,3,1,2]> (l)", size=33, w=(8, 8, 3, 3))
    assert found.stride("y") == 16


def test_a_mean_that_is_enlarged_to_a_map_is_one() -> None:
    body = f"{CONV} g = GlobalAveragePool(c) s = Constant <value = int64[4] {{1, 8, 32, 32}}> () r = Resize(g, , , s)"
    found = plane(f"{body} y = Concat <axis = 1> (c, r)", w=(8, 8, 3, 3))
    assert found.stride("y") == 2
    assert found.is_pooled("g")
    assert not plane(f"{body} y = Concat <axis = 1> (c, g)", w=(8, 8, 3, 3)).is_in("y")


def test_channels_last_and_back() -> None:
    body = f"{CONV} t = Transpose <perm = [0,2,3,1]> (c) l = Relu(t) y = Transpose <perm = [0,3,1,2]> (l)"
    assert plane(body, w=(8, 8, 3, 3)).stride("y") == 2
    assert not plane(body, shapes=False, w=(8, 8, 3, 3)).is_in("y"), "without sizes, what is transposed may be tokens"
    assert not plane(body.replace("0,3,1,2", "0,1,2,3"), w=(8, 8, 3, 3)).is_in("y")


def test_a_resize_to_computed_sizes_has_the_stride_of_what_it_joins() -> None:
    body = f"{CONV} s = Shape(x) r = Resize(c, , , s) k = Conv(r, p) y = Add(k, x)"
    found = plane(body, shapes=False, w=(8, 8, 3, 3), p=(8, 8, 1, 1))
    assert [found.stride(name) for name in ("r", "k", "y", "c")] == [1, 1, 1, 2]
    alone = plane(f"{CONV} s = Shape(x) y = Resize(c, , , s)", shapes=False, w=(8, 8, 3, 3))
    assert alone.is_in("y")
    assert alone.stride("y") is None, "nothing tells its size"


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
    assert Strides(View(index)).stride("y") == 2


FUSED = "c = Conv <strides = [2,2]> (x, w) d = Conv <strides = [2,2]> (c, p)"


def with_inputs(body: str, *, shapes: bool = True, **inputs: tuple[int | str | None, ...]) -> Strides:
    """A model that sees more than x [1, 8, 64, 64]."""
    model = graph(body, w=(8, 8, 1, 1), p=(8, 8, 1, 1))
    for name, shape in inputs.items():
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    index = GraphIndex(ModelFile.load(model))
    return Strides(View(index), ShapeTable(index) if shapes else None)


def test_an_image_of_another_size_begins_at_a_stride_of_its_own() -> None:
    found = with_inputs(
        f"{FUSED} i = Conv <strides = [2,2]> (ir, w) k = Concat <axis = 1> (d, i) y = Conv <strides = [2,2]> (k, p)",
        ir=(1, 8, 32, 32),
    )
    assert {name: found.stride(name) for name in ("x", "ir", "i", "k", "y")} == {
        "x": 1,
        "ir": 2,
        "i": 4,
        "k": 4,
        "y": 8,
    }


def test_the_largest_image_is_the_reference_wherever_it_stands() -> None:
    body = "c = Conv <strides = [2,2]> (big, w) d = Conv <strides = [2,2]> (x, p)"
    found = with_inputs(
        f"{body} m = MaxPool <kernel_shape = [2,2], strides = [2,2]> (c) y = Add(m, d)", big=(1, 8, 128, 128)
    )
    assert (found.stride("x"), found.stride("d"), found.stride("y")) == (2, 4, 4)


def test_a_state_of_the_size_of_a_map_joins_it() -> None:
    assert with_inputs(f"{FUSED} y = Concat <axis = 1> (d, state)", state=(1, 16, 16, 16)).stride("y") == 4


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (1,), (), (1, 8)])
def test_an_input_without_height_and_width_is_no_map(shape: tuple[int, ...]) -> None:
    found = with_inputs(f"{FUSED} y = Mul(d, factor)", factor=shape)
    assert found.stride("y") == 4
    assert not found.is_in("factor")


@pytest.mark.parametrize("ir", [(1, 8, None, None), (1, 8, "h", "w"), (1, 8, 64, 64)])
def test_images_of_unknown_sizes_count_as_equal(ir: tuple[int | str | None, ...]) -> None:
    body = f"{FUSED} i = Conv <strides = [4,4]> (ir, w) y = Add(d, i)"
    assert with_inputs(body, ir=ir).stride("y") == 4
    assert with_inputs(body, ir=(1, 8, 32, 32), shapes=False).stride("y") == 4


def test_an_image_that_is_resized_first_counts_with_its_new_size() -> None:
    scales = "s = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()"
    found = with_inputs(
        f"{scales} {FUSED} r = Resize(ir, , s) i = Conv <strides = [4,4]> (r, w) y = Add(d, i)", ir=(1, 8, 32, 32)
    )
    assert (found.stride("r"), found.stride("y")) == (1, 4)


def test_two_sizes_of_one_image() -> None:
    scales = "s = Constant <value = float[4] {1.0, 1.0, 0.5, 0.5}> ()"
    found = with_inputs(f"{scales} {FUSED} r = Resize(x, , s) i = Conv <strides = [2,2]> (r, w) y = Add(d, i)")
    assert (found.stride("x"), found.stride("r"), found.stride("y")) == (1, 2, 4)


def test_convolutions_of_one_dimension_with_computed_weights_are_off_the_plane() -> None:
    body = "t = Flatten <axis = 2> (c) k = Neg(w) y = Conv <strides = [2]> (t, k)"
    assert not plane(f"{CONV} {body}", w=(8, 8, 3, 3)).is_in("y")
