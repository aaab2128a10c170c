"""Nearest-neighbour resizing: source = floor(target * in / out) at every opset, in onnxruntime, onnx and torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import gcd

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from torch.nn.functional import interpolate

from graphsurgery.errors import BlockError
from graphsurgery.feature_map import FeatureMap
from graphsurgery.patterns.modules.ge import GatherExcite
from graphsurgery.template import nearest_resize
from graphsurgery.template.names import UniqueNames
from graphsurgery.template.template import Template

Pair = tuple[int, int]

EXTENTS = (2, 4, 8)
PAIRS = sorted({(-(-n // extent), n) for extent in EXTENTS for n in range(1, 201)})
"""(in, out) of all maps that an extent makes of a side of 1 ... 200."""

TORCH_MISSES = {torch.float32: {(50, 198), (16, 122)}, torch.float64: {(16, 122)}}
"""Where torch's own arithmetic misses its rule: it multiplies with a float32 in / out."""


def rule(source: int, target: int) -> np.ndarray:
    return np.arange(target) * source // target


# ---------------------------------------------------------------------- the scale


@pytest.mark.parametrize("pair", [(1, 7), (3, 20), (5, 19), (10, 80), (7, 52), (2, 13), (13, 13)])
def test_a_scale_is_exact_in_float32_and_in_float64(pair: Pair) -> None:
    source, target = pair
    scale = nearest_resize.exact_scale(source, target)
    assert scale is not None
    assert scale == float(np.float32(scale))
    for kind in (np.float32, np.float64):
        exact = np.asarray(scale, kind)
        np.testing.assert_array_equal(np.floor(np.arange(target).astype(kind) / exact), rule(source, target))
        assert np.floor(np.asarray(source, kind) * exact) == target


def test_there_is_a_scale_unless_a_common_divisor_meets_a_fraction_that_float32_rounds() -> None:
    for source, target in [*PAIRS, *((a, b) for a in range(1, 40) for b in range(a, 130))]:
        ratio = float(np.float32(target / source)) * source == target
        assert (nearest_resize.exact_scale(source, target) is not None) is (ratio or gcd(source, target) == 1)


def test_the_usual_sizes_of_detectors_have_one() -> None:
    for side in (20, 40, 80, 160, 13, 26, 52, 19, 10, 12, 24, 48, 96):
        for extent in EXTENTS:
            assert nearest_resize.exact_scale(-(-side // extent), side) is not None
    assert nearest_resize.exact_scale(10, 38) is None
    assert nearest_resize.exact_scale(10, 76) is None


# ---------------------------------------------------------------------- in onnxruntime


def sweep(
    pairs: Sequence[Pair], opset: int, batch: int | None, how: Callable[..., gs.Variable] = nearest_resize.resize
) -> onnx.ModelProto:
    """One model with a resize from h x 1 to H x 1 for each pair: inputs x0, x1 ..., their outputs in the same order."""
    names = UniqueNames()
    nodes, initializers, inputs, outputs = [], [], [], []
    for number, (source, target) in enumerate(pairs):
        x = names.reserve(f"x{number}")
        template = Template(FeatureMap(1, target, 1, batch=batch), opset=opset, x=x, names=names)
        subgraph = template.export(how(template, template.x, (source, 1)), ir_version=8)
        nodes += subgraph.nodes
        initializers += subgraph.initializers
        size: int | str = "N" if batch is None else batch
        inputs.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, [size, 1, source, 1]))
        outputs.append(helper.make_tensor_value_info(subgraph.output, TensorProto.FLOAT, [size, 1, target, 1]))
    graph = helper.make_graph(nodes, "sweep", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


@cache
def feeds(pairs: tuple[Pair, ...]) -> dict[str, np.ndarray]:
    """Every position holds its own index."""
    return {
        f"x{number}": np.arange(source, dtype=np.float32).reshape(1, 1, -1, 1)
        for number, (source, _) in enumerate(pairs)
    }


def wrong(pairs: Sequence[Pair], results: Sequence[np.ndarray]) -> list[Pair]:
    return [
        pair for pair, found in zip(pairs, results, strict=True) if not np.array_equal(found.reshape(-1), rule(*pair))
    ]


def run(model: onnx.ModelProto, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, values)
    return found


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 18, 19])
@pytest.mark.parametrize("batch", [1, None])
def test_every_size_up_to_200_at_every_extent(batch: int | None, opset: int) -> None:
    model = sweep(PAIRS, opset, batch)
    used = {node.op_type for node in model.graph.node}
    if opset < 11:
        assert used == {"Upsample" if opset == 9 else "Resize", "MatMul"}
    elif batch is None and opset < 18:
        assert used == {"Resize", "MatMul"}
    else:
        assert used == {"Resize"}
    assert wrong(PAIRS, run(model, feeds(tuple(PAIRS)))) == []


def test_matrices_for_runtimes_whose_resize_is_slow() -> None:
    model = sweep(PAIRS, 17, 1, nearest_resize.by_matrices)
    assert wrong(PAIRS, run(model, feeds(tuple(PAIRS)))) == []


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (7, 2)])
def test_matrices_keep_rows_and_columns_apart(size: Pair) -> None:
    site = (13, 21)
    template = Template(FeatureMap(2, *site, batch=1), opset=17, x="x")
    subgraph = template.export(nearest_resize.by_matrices(template, template.x, size), ir_version=8)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, *size])]
    outputs = [helper.make_tensor_value_info(subgraph.output, TensorProto.FLOAT, [1, 2, *site])]
    graph = helper.make_graph(subgraph.nodes, "matrices", inputs, outputs, subgraph.initializers)
    x = np.random.default_rng(1).standard_normal((1, 2, *size)).astype(np.float32)
    (y,) = run(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), {"x": x})
    np.testing.assert_array_equal(y, x[:, :, rule(size[0], site[0])][..., rule(size[1], site[1])])


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_the_reference_evaluator_takes_the_same_neighbours(opset: int, batch: int | None) -> None:
    """It computes in float64, where a scale that is only right in float32 would show."""
    pairs = [(3, 20), (10, 38), (10, 76), (10, 78), (16, 122), (20, 156), (5, 19), (50, 198), (25, 50)]
    model = sweep(pairs, opset, batch)
    assert wrong(pairs, list(ReferenceEvaluator(model).run(None, feeds(tuple(pairs))))) == []


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_a_dynamic_site_takes_the_same_neighbours(opset: int) -> None:
    """There the size comes from the map at the site: one model for all sizes."""
    template = Template(FeatureMap(1, None, None), opset=opset, x="site")
    small = template.mean_hw(template.x)  # any other tensor; its place is taken by the small map
    subgraph = template.export(nearest_resize.resize(template, small, None), ir_version=8)
    nodes = [node for node in subgraph.nodes if node.op_type != "ReduceMean"]
    inputs = [
        helper.make_tensor_value_info(small.name, TensorProto.FLOAT, [1, 1, "h", "w"]),
        helper.make_tensor_value_info("site", TensorProto.FLOAT, [1, 1, "H", "W"]),
    ]
    outputs = [helper.make_tensor_value_info(subgraph.output, TensorProto.FLOAT, [1, 1, "H", "W"])]
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(nodes, "dynamic", inputs, outputs, [t for t in subgraph.initializers if t.name in read])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = [
        session.run(None, {small.name: x, "site": np.zeros((1, 1, target, 1), np.float32)})[0]
        for x, (_, target) in zip(feeds(tuple(PAIRS)).values(), PAIRS, strict=True)
    ]
    assert wrong(PAIRS, results) == []


@pytest.mark.parametrize("opset", [9, 10])
def test_a_dynamic_size_needs_opset_11(opset: int) -> None:
    template = Template(FeatureMap(1, None, 8, label="/model.8"), opset=opset)
    with pytest.raises(BlockError, match=rf"^/model\.8 has a dynamic .* needs opset 11; the model has {opset}$"):
        nearest_resize.resize(template, template.x, None)


# ---------------------------------------------------------------------- in torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_itself_misses_its_rule_at_known_sizes_only(dtype: torch.dtype) -> None:
    results = [
        interpolate(torch.arange(source, dtype=dtype).reshape(1, 1, -1, 1), size=(target, 1), mode="nearest").numpy()
        for source, target in PAIRS
    ]
    assert set(wrong(PAIRS, results)) == TORCH_MISSES[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_module_never_misses_it(dtype: torch.dtype) -> None:
    for extent, side in [(8, 122), (4, 198), (8, 38), (4, 38), (8, 20), (2, 13)]:
        x = torch.linspace(-3, 3, side, dtype=dtype).reshape(1, 1, -1, 1)
        module = GatherExcite(1, extent=extent)
        small = torch.sigmoid(module.gather(x)).reshape(-1)
        assert small.diff().min() > 1e-3, "neighbours with the same gate could not be told apart"
        expected = x.reshape(-1) * small[torch.from_numpy(rule(len(small), side))]
        torch.testing.assert_close(module(x).reshape(-1), expected, rtol=1e-5, atol=1e-6)
