"""Shapes behind what exporters compute of shapes: every tensor as onnxruntime really gives it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

import graphsurgery
from graphsurgery.graph.shape_arithmetic import Size, compute, in_part, sizes
from graphsurgery.graph.shapes import inferred, tensor_type
from graphsurgery.graph.shapes_by_value import shape
from tests import models
from tests.models import node

IMAGE = (2, 8, 12, 10)
BATCH = 3


def ints(name: str, *values: int, scalar: bool = False) -> TensorProto:
    return numpy_helper.from_array(np.array(values[0] if scalar else values, np.int64), name)


def net(
    nodes: Sequence[NodeProto], weights: Sequence[TensorProto], opset: int = 17, batch: int | str = 2
) -> ModelProto:
    """x -> nodes -> y -> Relu -> z"""
    x, z = models.value("x", (batch, *IMAGE[1:])), models.value("z", None)
    return models.model([*nodes, node("Relu", ["y"], ["z"])], [x], [z], weights, opset=opset)


def chunk(opset: int = 17, batch: int | str = 2) -> ModelProto:
    """As TorchScript writes ``torch.cat(x.chunk(2, 1)[::-1], 1)``."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "one"], ["channels"], axis=0),
        node("Add", ["channels", "one"], ["more"]),
        node("Div", ["more", "two"], ["half"]),
        node("Mul", ["half", "one"], ["end"]),
        node("Slice", ["x", "zero", "end", "one"], ["a"]),
        node("Mul", ["half", "two"], ["ends"]),
        node("Slice", ["x", "end", "ends", "one"], ["b"]),
        node("Concat", ["b", "a"], ["y"], axis=1),
    ]
    return net(nodes, [ints("zero", 0), ints("one", 1), ints("two", 2)], opset, batch)


def unsqueezed(opset: int, name: str) -> NodeProto:
    if opset < 13:
        return node("Unsqueeze", [name], [f"{name}_1"], axes=[0])
    return node("Unsqueeze", [name, "zero"], [f"{name}_1"])


def view(opset: int = 17, batch: int | str = 2) -> ModelProto:
    """As TorchScript writes ``x.view(b, 2, c // 2, h, w).flatten(3).view(b, c, h, w)``."""
    nodes = [node("Shape", ["x"], ["shape"])]
    for axis, name in enumerate("bchw"):
        nodes += [node("Gather", ["shape", f"at_{axis}"], [name]), unsqueezed(opset, name)]
    nodes += [
        node("Div", ["c", "half"], ["groups"]),
        unsqueezed(opset, "groups"),
        node("Concat", ["b_1", "two", "groups_1", "h_1", "w_1"], ["grouped"], axis=0),
        node("Reshape", ["x", "grouped"], ["five"]),
        node("Mul", ["h", "w"], ["area"]),
        unsqueezed(opset, "area"),
        node("Concat", ["b_1", "two", "minus", "area_1"], ["flat"], axis=0),
        node("Reshape", ["five", "flat"], ["tokens"]),
        node("Concat", ["b_1", "c_1", "h_1", "w_1"], ["back"], axis=0),
        node("Reshape", ["tokens", "back"], ["y"]),
    ]
    weights = [ints(f"at_{axis}", axis, scalar=True) for axis in range(4)]
    weights += [ints("half", 2, scalar=True), ints("two", 2), ints("zero", 0), ints("minus", -1)]
    return net(nodes, weights, opset, batch)


def interpolate(opset: int = 17, batch: int | str = 2) -> ModelProto:
    """As TorchScript writes an interpolation to twice the size, as a floating-point number."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "two", "four"], ["hw"]),
        node("Cast", ["hw"], ["real"], to=TensorProto.FLOAT),
        node("Mul", ["real", "scale"], ["scaled"]),
        node("Floor", ["scaled"], ["floor"]),
        node("Cast", ["floor"], ["size"], to=TensorProto.INT64),
        node("Slice", ["shape", "zero", "two"], ["bc"]),
        node("Concat", ["bc", "size"], ["sizes"], axis=0),
        node("Resize", ["x", "none", "none", "sizes"], ["y"], mode="nearest"),
    ]
    none = numpy_helper.from_array(np.zeros(0, np.float32), "none")
    scale = numpy_helper.from_array(np.array([1.5], np.float32), "scale")
    return net(nodes, [ints("zero", 0), ints("two", 2), ints("four", 4), none, scale], opset, batch)


def expand(opset: int = 17, batch: int | str = 2) -> ModelProto:
    """As TorchScript writes ``x.mean((2, 3), keepdim=True).expand(x.shape)``."""
    nodes = [
        node("GlobalAveragePool", ["x"], ["mean"]),
        node("Shape", ["x"], ["shape"]),
        node("Shape", ["shape"], ["rank"]),
        node("ConstantOfShape", ["rank"], ["ones"], value=ints("", 1)),
        node("Mul", ["ones", "minus"], ["negative"]),
        node("Equal", ["shape", "negative"], ["is_negative"]),
        node("Where", ["is_negative", "ones", "shape"], ["target"]),
        node("Expand", ["mean", "target"], ["y"]),
    ]
    return net(nodes, [ints("minus", -1, scalar=True)], opset, batch)


def zeros(opset: int = 17, batch: int | str = 2) -> ModelProto:
    """Zeros beside the map, from its sizes."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["zeros"]),
        node("Concat", ["x", "zeros"], ["y"], axis=1),
    ]
    return net(nodes, [], opset, batch)


def deep(opset: int = 17, batch: int | str = 2) -> ModelProto:
    """Ten chunks behind one another: each is computed of shapes behind the one before."""
    made = chunk(opset, batch)
    graph, ten = made.graph, ModelProto()
    ten.CopyFrom(made)
    del ten.graph.node[:]
    for i in range(10):
        for each in graph.node[:-1]:
            copied = ten.graph.node.add()
            copied.CopyFrom(each)
            names = {"x": f"x{i}" if i else "x", "y": f"x{i + 1}" if i < 9 else "y"}
            own = {name for inner in graph.node for name in inner.output}
            rename = {name: f"{name}_{i}" for name in own} | names
            copied.input[:] = [rename.get(name, name) for name in each.input]
            copied.output[:] = [rename.get(name, name) for name in each.output]
    ten.graph.node.append(graph.node[-1])
    return ten


FORMS = (chunk, view, interpolate, expand, zeros, deep)


def check(model: ModelProto, batch: int = 2) -> dict[str, tuple[Any, ...]]:
    """The shapes that are known, after they were compared with those that onnxruntime gives."""
    copy = inferred(model)
    assert copy is not None
    declared = (*copy.graph.value_info, *copy.graph.output)
    found = {value.name: tensor_type(value.type)[1] for value in declared}
    names = [name for each in model.graph.node for name in each.output]
    whole = ModelProto()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    for name, value in zip(names, models.run(whole.SerializeToString(), size=batch), strict=True):
        known = found.get(name)
        if known is None:
            continue
        expected = tuple(batch if size == "batch" else size for size in known)
        assert len(expected) == value.ndim
        assert all(a in (b, None) for a, b in zip(expected, value.shape, strict=True)), name
    return {name: known for name, known in found.items() if known is not None}


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("form", FORMS)
def test_static_models_have_static_places(form: Callable[..., ModelProto], opset: int) -> None:
    shapes = check(form(opset))
    assert shapes.keys() >= {name for each in form(opset).graph.node for name in each.output}
    assert all(isinstance(size, int) for known in shapes.values() for size in known)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("form", FORMS)
def test_a_dynamic_batch_stays_dynamic_and_the_rest_is_static(form: Callable[..., ModelProto], opset: int) -> None:
    model = form(opset, "batch")
    batch, *rest = check(model, BATCH)["y"]
    assert batch in ("batch", None)
    assert all(isinstance(size, int) for size in rest)
    if form is not interpolate:
        assert batch == "batch"


def test_in_a_local_function() -> None:
    made = chunk()
    imports = [helper.make_opsetid("", 17)]
    body = [
        *(helper.make_node("Constant", [], [t.name], value=t) for t in made.graph.initializer),
        *made.graph.node[:-1],
    ]
    made.functions.append(helper.make_function("local", "C2f", ["x"], ["y"], body, imports))
    made.opset_import.append(helper.make_opsetid("local", 1))
    call = helper.make_node("C2f", ["x"], ["y"], domain="local")
    last = made.graph.node[-1]
    del made.graph.node[:]
    del made.graph.initializer[:]
    made.graph.node.extend([call, last])
    (site,) = (each for each in graphsurgery.sites(made, "tensor:y"))
    assert site.shape == IMAGE


def test_blocks_that_need_a_size_go_behind_a_chunk() -> None:
    for form in (chunk, deep):
        model = graphsurgery.insert(form(), "ge[theta-plus]", after="tensor:y")
        assert model.insertions()[0].site.shape == IMAGE


def test_a_real_export() -> None:
    """Of a chunk behind a chunk, as ``torch.onnx.export`` writes it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(2):
                x = torch.cat(self.conv(x).chunk(2, 1)[::-1], 1)
            return functional.interpolate(x, size=x.shape[-1] * 2).relu()

    stream = io.BytesIO()
    torch.onnx.export(Net().eval(), (torch.zeros(IMAGE),), stream, dynamo=False, opset_version=17, input_names=["x"])
    shapes = check(onnx.load_from_string(stream.getvalue()))
    assert all(isinstance(size, int) for known in shapes.values() for size in known)


@pytest.mark.long
@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "rtdetr-l"])
def test_detectors_as_torch_itself_exports_them(name: str, opset: int) -> None:
    """Not as the exporter of Ultralytics, which replaces the chunks."""
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    if name == "rtdetr-l" and opset < 16:
        pytest.skip("its GridSample is of opset 16")
    rows = tasks.yaml_model_load(f"{name}.yaml")
    kind = tasks.RTDETRDetectionModel if name == "rtdetr-l" else tasks.DetectionModel
    detector = kind(rows, ch=3, verbose=False).eval()
    stream = io.BytesIO()
    torch.onnx.export(
        detector, (torch.zeros(1, 3, 160, 160),), stream, dynamo=False, opset_version=opset, input_names=["images"]
    )
    model = onnx.load_from_string(stream.getvalue())
    shapes, found = check(model), graphsurgery.sites(model)
    assert len(found) > 200
    for site in found:
        assert all(isinstance(size, int) for size in site.shape)
        assert shapes[site.tensor] == site.shape
    after = {"yolov8n": "/model.8", "yolo11n": "/model.8", "rtdetr-l": "/model.16"}[name]
    graphsurgery.insert(model, "ge[theta-plus]", after=after)


# ---------------------------------------------------------------------- values that are known in part


@pytest.mark.parametrize(
    ("op_type", "inputs", "expected"),
    [
        ("Add", [["n", 4], [0, 1]], ["n", 5]),
        ("Add", [[0], ["n"]], ["n"]),
        ("Add", [["n"], [1]], [None]),
        ("Sub", [["n", 4], [0, 1]], ["n", 3]),
        ("Sub", [[0], ["n"]], [None]),
        ("Mul", [["n", "n", 4], [1, 2, 2]], ["n", None, 8]),
        ("Mul", [["n", 2**40], [1, 2**40]], ["n", None]),
        ("Div", [["n", "n", -7], [1, 2, 2]], ["n", None, -3]),
        ("Div", [["n"], [0]], [None]),
        ("Equal", [["n", "n", "n", None, 3], [-1, 3, 0, 3, 3]], [False, None, None, None, True]),
        ("Where", [[True, False], ["n", 1], [2, "m"]], ["n", "m"]),
        ("Concat", [["n"], [3, -1]], ["n", 3, -1]),
        ("Gather", [["n", 3], [1]], [3]),
        ("Slice", [["n", 3], [0], [1]], ["n"]),
        ("Slice", [[1, 3], [0], [None]], "unknown"),
        ("Slice", [[1, 3], [None], [2], [0], [1]], "unknown"),
        ("Floor", [["n"]], "unknown"),
        ("ReduceProd", [["n", 2]], "unknown"),
    ],
)
def test_operators_on_names(op_type: str, inputs: list[list[Size]], expected: list[Size] | str) -> None:
    values = {f"i{i}": sizes(each) for i, each in enumerate(inputs)}
    attributes = {"axis": 0} if op_type in ("Concat", "Gather") else {}
    made = helper.make_node(op_type, list(values), ["o"], **attributes)
    found = compute(made, values, [helper.make_opsetid("", 17)])
    if expected == "unknown":
        assert found is None
    else:
        assert found is not None
        assert found.tolist() == expected
        assert in_part(found) == any(isinstance(each, str | None) for each in expected)


@pytest.mark.parametrize(
    ("op_type", "data", "values", "expected"),
    [
        ("Reshape", ["n", 8, 4, 4], [["n", 2, -1]], ["n", 2, 64]),
        ("Reshape", ["n", 8, 4, 4], [[0, 0, -1]], ["n", 8, 16]),
        ("Reshape", ["n", 8, 4, 4], [[None, 2, 64]], ["n", 2, 64]),
        ("Reshape", ["n", 8, 4, 4], [["m", 2, -1]], ["m", 2, None]),
        ("Reshape", ["n", 8], [["n", 3, -1]], ["n", 3, None]),
        ("Reshape", ["n", 8], [[None, -1]], [None, None]),
        ("Reshape", None, [["n", 3, -1]], ["n", 3, None]),
        ("Expand", [1, 8, 1], [["n", 1, "m"]], ["n", 8, "m"]),
        ("Expand", [8, "n"], [["b", 1, None]], ["b", 8, None]),
        ("Slice", ["n", 8, 4], [[0], ["n"], [0], [1]], ["n", 8, 4]),
        ("Slice", ["n", 8, 4], [[0], [2**62], [0], [1]], ["n", 8, 4]),
        ("Slice", ["n", 8, 4], [[0, 1], ["m", 9], [0, 1], [1, 2]], [None, 4, 4]),
        ("Slice", ["n", 8, 4], [[-1], [-(2**62)], [1], [-1]], ["n", 8, 4]),
        ("Slice", ["n", 8], [[None], [4], [1]], ["n", None]),
        ("Slice", ["n", 8], [[0], [4], [7]], [None, None]),
        ("Resize", [1, 8, 4, 4], [[], [], ["n", 8, 6, 6]], ["n", 8, 6, 6]),
        ("Tile", [1], [["n"]], None),
    ],
)
def test_shapes_of_values_that_are_known_in_part(
    op_type: str, data: list[Size] | None, values: list[list[Size]], expected: list[Size] | None
) -> None:
    assert shape(op_type, data, [None, *map(sizes, values)], {}) == expected


@pytest.mark.parametrize(("name", "expected"), [("?", None), ("-1", None), ("None", None), ("n", 8 * 12 * 10)])
def test_what_stands_for_any_size_is_no_name(name: str, expected: int | None) -> None:
    """Two sizes that are called ``?`` need not be equal, as two that are called ``n`` are."""
    nodes = [
        node("Shape", ["other"], ["shape"]),
        node("Gather", ["shape", "zero"], ["rows"]),
        node("Concat", ["rows", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    made = net(nodes, [ints("zero", 0), ints("rest", -1)], batch=name)
    made.graph.input.append(models.value("other", (name, 4)))
    copy = inferred(made)
    assert copy is not None
    (y,) = (value.type for value in copy.graph.value_info if value.name == "y")
    assert tensor_type(y)[1] == ("n" if expected else None, expected)


# ---------------------------------------------------------------------- files of kilobytes


def squares() -> list[NodeProto]:
    """A number that is squared until nothing can hold it."""
    nodes = [node("Shape", ["x"], ["v0"]), *(node("Mul", [f"v{i}"] * 2, [f"v{i + 1}"]) for i in range(500))]
    return [*nodes, node("Reshape", ["x", "v500"], ["y"])]


def lengthened() -> list[NodeProto]:
    """A shape of thousands of sizes, added to itself again and again."""
    nodes = [node("Shape", ["x"], ["v0"])]
    nodes += [node("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=0) for i in range(40)]
    nodes += [node("Add", [f"v{i if i == 13 else f'{i - 1}w'}"] * 2, [f"v{i}w"]) for i in range(13, 1500)]
    return [*nodes, node("Reshape", ["x", "v1499w"], ["y"])]


def levels() -> list[NodeProto]:
    """A thousand levels, the shape of each computed of the one before."""
    nodes = []
    for i in range(1000):
        x, y = (f"x{i}" if i else "x"), (f"x{i + 1}" if i < 999 else "y")
        nodes += [
            node("Shape", [x], [f"s{i}"]),
            node("Div", [f"s{i}", "one"], [f"d{i}"]),
            node("Reshape", [x, f"d{i}"], [y]),
        ]
    return nodes


@pytest.mark.parametrize(("nodes", "expected"), [(squares, None), (lengthened, None), (levels, ("batch", *IMAGE[1:]))])
def test_files_that_stand_for_much_work(nodes: Callable[[], list[NodeProto]], expected: object) -> None:
    model = net(nodes(), [ints("one", 1)], batch="batch")
    start = time.process_time()
    copy = inferred(model)
    assert time.process_time() - start < 5
    assert copy is not None
    (y,) = (tensor_type(value.type)[1] for value in copy.graph.output)
    assert y == expected or (expected is None and (y is None or not all(isinstance(size, int) for size in y)))
