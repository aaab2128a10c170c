"""Gather-Excite: its operators, its index rule and its borders, and timm's module where timm has the published one."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Reference, Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import Array, Built, build, feature_map, random_weights
from tests.patterns.attention.verdicts import assert_close

EXTENTS = (2, 4, 8)
LEARNED = ("ge[theta]", "ge[theta-plus]")


def stages(extent: int) -> list[str]:
    """Convolutions with a Relu between them."""
    return ["Conv", "Relu"] * ({2: 1, 4: 2, 8: 3}[extent] - 1) + ["Conv"]


EXCITE = ["Relu", "Conv", "Relu", "Conv"]


@pytest.mark.parametrize("opset", [9, 10, 11, 17, 18])
@pytest.mark.parametrize("batch", [1, None])
def test_operators_at_a_static_site(batch: int | None, opset: int) -> None:
    resize = "Upsample" if opset == 9 else "Resize"
    feature = feature_map(batch=batch, height=16, width=24)

    def operators(spelled: str, extent: int) -> list[str]:
        return build(spelled, {"extent": extent}, feature, opset=opset).operators

    assert operators("ge", 0) == ["ReduceMean", "Sigmoid", "Mul"]
    for extent in EXTENTS:
        # the sigmoid on the small map, in front of the resize
        assert operators("ge", extent) == ["AveragePool", "Sigmoid", resize, "Mul"]
        assert operators("ge[theta]", extent) == [*stages(extent), "Sigmoid", resize, "Mul"]
        assert operators("ge[theta-plus]", extent) == [*stages(extent), *EXCITE, "Sigmoid", resize, "Mul"]


@pytest.mark.parametrize("lowering", ["product", "convolution"])
def test_operators_of_a_gather_over_the_whole_map(lowering: str) -> None:
    gather = {"product": ["Mul", "ReduceMean", "Add"], "convolution": ["Conv"]}[lowering]
    assert build("ge[theta]", lowering=lowering).operators == [*gather, "Sigmoid", "Mul"]
    assert build("ge[theta-plus]", lowering=lowering).operators == [*gather, *EXCITE, "Sigmoid", "Mul"]


def test_operators_of_timms_class() -> None:
    """SE's convolutions come at once; a convolution as large as the map loses a position of an even side only."""
    excite = EXCITE[1:]

    def operators(height: int, **settings: object) -> list[str]:
        return build("ge[timm]", settings, feature_map(height=height, width=height)).operators

    assert operators(13) == ["ReduceMean", *excite, "Sigmoid", "Mul"]
    gemm = build("ge[timm]", feature=feature_map(16), target="onnxruntime").operators
    assert gemm == ["ReduceMean", "Gemm", "Relu", "Gemm", "Sigmoid", "Reshape", "Mul"]
    assert operators(16, extent=4) == ["AveragePool", *excite, "Sigmoid", "Resize", "Mul"]
    half = ["Mul", "Mul", "Add"]
    assert operators(13, add_maxpool=True) == ["ReduceMean", "ReduceMax", *half, *excite, "Sigmoid", "Mul"]
    assert operators(16, extent=2, add_maxpool=True)[:5] == ["AveragePool", "MaxPool", *half]
    assert operators(16, extra_params=True, extent=4, mlp=False) == [*stages(4), "Sigmoid", "Resize", "Mul"]
    assert operators(13, extra_params=True) == ["Conv", *excite, "Sigmoid", "Mul"]
    assert operators(16, extra_params=True) == ["Conv", *excite, "Sigmoid", "Resize", "Mul"]


@pytest.mark.parametrize("spelled", ["ge", *LEARNED])
@pytest.mark.parametrize("extent", EXTENTS)
def test_a_site_of_dynamic_size(extent: int, spelled: str) -> None:
    feature = feature_map(height=None, width=None, batch=None)
    built = build(spelled, {"extent": extent}, feature, opset=11)
    assert built.operators[-3:] == ["Shape", "Resize", "Mul"]
    assert "Gather" not in built.operators
    run = Runtime(built.model)
    for shape in ((1, 6, 20, 20), (2, 6, 13, 21), (1, 6, 38, 46), (1, 6, 1, 1), (1, 6, 16, 122)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        assert_close(run(x), built.expected(x), x, "float32", str(shape))


@pytest.mark.parametrize("opset", [9, 10])
@pytest.mark.parametrize("spelled", ["ge", *LEARNED])
def test_resizing_to_an_unknown_size_needs_opset_11(spelled: str, opset: int) -> None:
    feature = feature_map(height=None)
    with pytest.raises(BlockError, match=rf"resizing to it needs opset 11; the model has {opset}"):
        build(spelled, {"extent": 4}, feature, opset=opset)
    build("ge", {}, feature, opset=opset)


@pytest.mark.parametrize("spelled", LEARNED)
def test_a_convolution_as_large_as_the_map_needs_the_size(spelled: str) -> None:
    for height, width in ((None, 20), (20, None)):
        with pytest.raises(BlockError, match=r"/model\.8 has a dynamic height or width; give an extent of 2, 4 or 8"):
            build(spelled, feature=feature_map(height=height, width=width))


# ---------------------------------------------------------------------- the function


def pooled(x: Array, extent: int) -> Array:
    """Mean over the positions of the map inside a window of 2 * extent - 1, every ``extent`` positions."""
    height, width = x.shape[2:]
    g = np.empty((*x.shape[:2], -(-height // extent), -(-width // extent)))
    for i, j in np.ndindex(*g.shape[2:]):
        rows = slice(max(0, i * extent - extent + 1), i * extent + extent)
        columns = slice(max(0, j * extent - extent + 1), j * extent + extent)
        g[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    return g


def enlarged(z: Array, height: int, width: int) -> Array:
    rows, columns = np.arange(height) * z.shape[2] // height, np.arange(width) * z.shape[3] // width
    return z[:, :, rows][:, :, :, columns]


@pytest.mark.parametrize("opset", [9, 10, 11, 17, 18])
@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("size", [(20, 20), (13, 21), (38, 76), (1, 1), (1, 9), (3, 2), (16, 122), (46, 44)])
def test_theta_minus_is_the_published_formula(size: tuple[int, int], extent: int, opset: int) -> None:
    """Borders average over what is there; every position takes the neighbour floor(i * m / n)."""
    x = np.random.default_rng(3).standard_normal((2, 3, *size)).astype(np.float32)
    wide = x.astype(np.float64)
    expected = wide / (1 + np.exp(-enlarged(pooled(wide, extent), *size)))
    for batch in (2, None):
        built = build("ge", {"extent": extent}, feature_map(3, *size, batch=batch), opset=opset)
        for lowering in built.block.lowerings(built.feature, opset):
            each = build("ge", {"extent": extent}, built.feature, opset=opset, lowering=lowering)
            np.testing.assert_allclose(Runtime(each.model)(x), expected, rtol=2e-6, atol=2e-6)
        if opset == 17:
            np.testing.assert_allclose(Reference(built.model)(x), expected, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(built.expected(x), expected, rtol=1e-12)


def test_the_sizes_of_yolo_at_608_have_no_exact_scale() -> None:
    """38 from 10 has none: the size itself is given where the opset and the batch allow it, else 0/1 matrices."""
    for batch, opset, last in (
        (1, 17, ["Sigmoid", "Resize", "Mul"]),
        (None, 18, ["Sigmoid", "Resize", "Mul"]),
        (None, 17, ["Sigmoid", "MatMul", "MatMul", "Mul"]),
        (1, 10, ["Sigmoid", "MatMul", "MatMul", "Mul"]),
    ):
        built = build("ge", {"extent": 4}, feature_map(4, 38, 38, batch=batch), opset=opset)
        assert built.operators == ["AveragePool", *last]


def test_batch_norms_are_gone_and_biases_are_there() -> None:
    built = build("ge[theta]", {"extent": 8}, feature_map(4))
    convolutions = [node for node in built.graph.node if node.op_type == "Conv"]
    assert [len(node.input) for node in convolutions] == [3, 3, 3]
    for stage, node in enumerate(convolutions, start=1):
        prefix = f"gather.norm{stage}"
        scale = built.weights[f"{prefix}.weight"] / np.sqrt(built.weights[f"{prefix}.running_var"] + 1e-5)
        bias = built.weights[f"{prefix}.bias"] - scale * built.weights[f"{prefix}.running_mean"]
        np.testing.assert_allclose(numpy_helper.to_array(built.constants[node.input[2]]), bias, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("spelled", LEARNED)
@pytest.mark.parametrize("extent", [0, 4])
def test_bn_eps_reaches_the_fold(extent: int, spelled: str) -> None:
    feature = feature_map()
    settings: dict[str, object] = {"extent": extent, **({"hidden": 3} if spelled == "ge[theta-plus]" else {})}
    given = random_weights(make_block(spelled, settings), feature)
    x = np.random.default_rng(1).standard_normal((1, 6, 13, 21)).astype(np.float32)
    usual, other = (
        Runtime(build(spelled, {**settings, "bn_eps": eps}, feature, weights=given).model)(x) for eps in (1e-5, 0.1)
    )
    assert np.abs(usual - other).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_a_scale_of_0_loses_the_weights_and_not_the_function(dtype: str) -> None:
    """What is read back for such a channel is 0, and any weight would do: its map is the shift everywhere."""
    feature = feature_map(dtype=dtype)
    given = random_weights(make_block("ge[theta]"), feature)
    given["gather.norm1.weight"][2] = 0.0
    for lowering in make_block("ge[theta]").lowerings(feature, 17):
        built = build("ge[theta]", feature=feature, weights=given, lowering=lowering)
        assert not built.weights["gather.conv1.weight"][2].any()
        x = np.random.default_rng(1).standard_normal((1, 6, 13, 21)).astype(dtype)
        run = Reference(built.model) if dtype == "float64" else Runtime(built.model)
        assert_close(run(x), built.expected(x), x, dtype)


# ---------------------------------------------------------------------- hyper-parameters and weights


@pytest.mark.parametrize(("channels", "hidden"), [(4, 1), (23, 1), (24, 2), (40, 3), (256, 16)])
def test_hidden_width_rounds_half_up(channels: int, hidden: int) -> None:
    shapes = make_block("ge[theta-plus]").parameters(feature_map(channels))
    assert shapes["mlp.fc1.weight"] == (hidden, channels, 1, 1)


@pytest.mark.parametrize(
    ("spelled", "settings", "message"),
    [
        ("ge", {"extent": 3}, "extent of ge is one of 0, 2, 4, 8, not 3"),
        ("ge", {"hidden": 8}, r"ge\[theta-minus\] has no hyper-parameter 'hidden'; the known ones are extent"),
        ("ge", {"bn_eps": 1e-3}, r"ge\[theta-minus\] has no hyper-parameter 'bn_eps'"),
        ("ge[theta]", {"hidden": 8}, r"ge\[theta\] has no hyper-parameter 'hidden'; the known ones are extent, bn_eps"),
        ("ge[theta-plus]", {"hidden": 0}, "hidden of ge is at least 1, not 0"),
        ("ge[theta+]", {}, r"ge has no variant 'theta\+'; it has the variants theta-minus, theta, theta-plus, timm"),
    ],
)
def test_settings_that_do_not_fit_are_refused(spelled: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(BlockError, match=message):
        make_block(spelled, settings)


def inserted(spelled: str, given: dict[str, Array], channels: int) -> Built:
    feature = feature_map(channels)
    block, fitted = fit(make_block(spelled), feature, given)
    return build(spelled, block.values, feature, weights=fitted)


def test_the_hidden_width_is_read_off_the_weights() -> None:
    given = random_weights(make_block("ge[theta-plus]", {"hidden": 5}), feature_map(32))
    assert inserted("ge[theta-plus]", given, 32).block.values["hidden"] == 5


def test_weights_of_theta_plus_do_not_fit_theta() -> None:
    given = random_weights(make_block("ge[theta-plus]"), feature_map(32))
    with pytest.raises(WeightsError, match=r"has mlp\.fc1\.weight, .*which the block does not"):
        inserted("ge[theta]", given, 32)


@pytest.mark.parametrize("settings", [{}, {"extra_params": True}, {"extra_params": True, "extent": 8, "mlp": False}])
def test_what_timms_class_consists_of_is_read_off_the_weights(settings: dict[str, object]) -> None:
    given = random_weights(made := make_block("ge[timm]", settings), feature_map(32))
    block, _ = fit(make_block("ge[timm]"), feature_map(32), given)
    assert {**block.values, "hidden": None} == made.values


def test_a_maximum_is_of_a_pooling() -> None:
    with pytest.raises(BlockError, match=r"add_maxpool of ge\[timm\] is of its pooling, and with extra_params"):
        build("ge[timm]", {"extra_params": True, "add_maxpool": True})


def test_keys_of_the_srm_repository() -> None:
    given = random_weights(make_block("ge[theta]"), feature_map(8))
    renamed = {
        key.replace("gather.conv1", "conv.0").replace("gather.norm1", "conv.1"): values for key, values in given.items()
    }
    built = inserted("ge[theta]", renamed, 8)
    for key, values in given.items():
        np.testing.assert_allclose(built.weights[key], values, rtol=1e-6)


@pytest.mark.parametrize("extent", [0, *EXTENTS])
@pytest.mark.parametrize("size", [(20, 20), (13, 21), (38, 38)])
def test_a_timm_module(timm_layers: ModuleType, size: tuple[int, int], extent: int) -> None:
    """timm 1.0.21 and later can build this configuration alone; the learned ones are timm's by their stages."""
    referee = timm_layers.GatherExcite(6, extra_params=False, extent=extent, use_mlp=False).double().eval()
    built = build("ge", {"extent": extent}, feature_map(6, *size))
    x = np.random.default_rng(3).standard_normal((1, 6, *size)).astype(np.float32)
    with torch.no_grad():
        expected = referee(torch.from_numpy(x).double()).numpy()
    assert_close(Runtime(built.model)(x), expected, x, "float32")
