"""Means as chains of poolings and convolutions, for every size of a side."""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest

from graphsurgery.feature_map import FeatureMap
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.template import dla_mean
from graphsurgery.template.template import Template
from graphsurgery.tensorrt import findings

SIZES = [*range(1, 130), 160, 169, 320, 640, 1009]
CHANNELS = 5


@cache
def fewest(size: int) -> float:
    """How many whole numbers from 2 to 8 a size is the product of, at least."""
    return 0 if size == 1 else min((1 + fewest(size // w) for w in range(2, 9) if size % w == 0), default=math.inf)


@pytest.mark.parametrize("size", SIZES)
def test_a_side_becomes_one_position_in_windows_that_tile_it(size: int) -> None:
    chain, left = dla_mean.steps(size), size
    for place, step in enumerate(chain):
        left += step.filled
        assert left % step.window == 0
        assert 1 < step.window <= (dla_mean.WINDOW if left > step.window else dla_mean.KERNEL)
        assert place < len(chain) - 1 or left == step.window
        left //= step.window
    assert left == 1
    if fewest(size) < math.inf:
        assert len(chain) == fewest(size)
        assert not any(step.filled for step in chain)
        assert all(step.window <= dla_mean.WINDOW for step in chain)


def test_known_sides() -> None:
    assert [[s.window for s in dla_mean.steps(size)] for size in (80, 40, 20, 13, 26)] == [
        [8, 5, 2],
        [8, 5],
        [5, 4],
        [13],
        [2, 13],
    ]
    assert dla_mean.steps(37) == [dla_mean.Step(8, 3), dla_mean.Step(5)]


def built(
    size: tuple[int | None, int | None], axes: tuple[int, ...], dtype: str = "float32", opset: int = 17
) -> onnx.ModelProto:
    """A model that takes the mean as a DLA is to."""
    feature = FeatureMap(CHANNELS, *size, dtype, 2)
    t = Template(feature, opset=opset, target="dla", x="x")
    subgraph = t.export(t.reduce("ReduceMean", t.x, axes), ir_version=8)
    shape = [2, CHANNELS, *size]
    x = onnx.helper.make_tensor_value_info("x", feature.onnx_type, shape)
    y = onnx.helper.make_tensor_value_info(subgraph.output, feature.onnx_type, None)
    graph = onnx.helper.make_graph(subgraph.nodes, "mean", [x], [y], subgraph.initializers)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("axes", [(2, 3), (2,), (3,), (1,), (1, 2, 3)])
@pytest.mark.parametrize("size", [(20, 20), (80, 80), (13, 21), (40, 37), (1, 9), (1, 1), (7, 97), (26, 38)])
def test_the_mean(size: tuple[int, int], axes: tuple[int, ...]) -> None:
    """Of a signal with a slope, so that a position that counts too much shows. All of it runs on a DLA."""
    x = np.random.default_rng(0).standard_normal((2, CHANNELS, *size)) + np.linspace(-1, 1, size[1])
    model = built(size, axes)
    expected = x.mean(axis=axes, keepdims=True)
    np.testing.assert_allclose(run(model, x.astype(np.float32)), expected, rtol=1e-5, atol=1e-6)
    operators = {node.op_type for node in model.graph.node}
    assert operators <= {"AveragePool", "Conv"}
    assert findings(ModelFile.load(model), "10", dla="orin", precision="fp16") == []


@pytest.mark.parametrize(("size", "opset"), list(product([(80, 80), (13, 37)], (9, 13, 18, 22))))
def test_in_float16_without_leaving_it(size: tuple[int, int], opset: int) -> None:
    x = np.full((2, CHANNELS, *size), 60000.0, np.float16)
    found = run(built(size, (2, 3), "float16", opset), x)
    np.testing.assert_allclose(found.astype(np.float64), 60000.0, rtol=1e-3)


@pytest.mark.parametrize(("size", "axes"), [((None, None), (2, 3)), ((20, None), (3,))])
def test_sides_that_are_not_known_are_reduced(size: tuple[int | None, int | None], axes: tuple[int, ...]) -> None:
    assert [node.op_type for node in built(size, axes).graph.node] == ["ReduceMean"] * len(axes)


def test_a_known_side_is_pooled_beside_one_that_is_not() -> None:
    assert [node.op_type for node in built((20, None), (2,)).graph.node] == ["AveragePool", "AveragePool"]


def test_a_tensor_within_the_block_has_its_own_shape() -> None:
    t = Template(FeatureMap(6, 20, 20, "float32", 1), opset=17, target="dla", x="x")
    flat = t.op("Reshape", t.x, t.integers([0, 3, -1, 1], "shape"))
    assert t.shape_of(t.x) == (1, 6, 20, 20)
    assert t.shape_of(flat) == (1, 3, 800, 1)
    subgraph = t.export(t.mean_hw(flat), ir_version=8)
    windows = [onnx.helper.get_node_attr_value(n, "kernel_shape") for n in subgraph.nodes if n.op_type == "AveragePool"]
    assert windows == [[8, 1], [5, 1], [5, 1], [4, 1]]
    assert t.shape_of(t.op("Reshape", t.x, t.op("Shape", flat, dtype=onnx.TensorProto.INT64))) is not None


@pytest.mark.parametrize("size", [(40, 40), (13, 37)])
def test_the_sum(size: tuple[int, int]) -> None:
    t = Template(FeatureMap(CHANNELS, *size, "float32", 2), opset=17, x="x")
    subgraph = t.export(dla_mean.total(t, t.x), ir_version=8)
    x = np.random.default_rng(0).standard_normal((2, CHANNELS, *size)).astype(np.float32)
    ends = [onnx.helper.make_tensor_value_info(n, 1, s) for n, s in (("x", x.shape), (subgraph.output, None))]
    graph = onnx.helper.make_graph(subgraph.nodes, "sum", ends[:1], ends[1:], subgraph.initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    np.testing.assert_allclose(
        run(model, x), x.astype(np.float64).sum(axis=(2, 3), keepdims=True), rtol=1e-4, atol=1e-3
    )
