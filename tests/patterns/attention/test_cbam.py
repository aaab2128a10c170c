"""CBAM: its operators, its hidden widths, and the weights of the modules that people have."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted, trained
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights

CHANNEL = ["ReduceMean", "ReduceMax", "Conv", "Conv", "Relu", "Relu", "Add", "Conv", "Sigmoid", "Mul"]
SPATIAL = ["ReduceMax", "ReduceMean", "Concat", "Conv", "Sigmoid", "Mul"]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_operators(opset: int) -> None:
    for height, batch in ((13, 1), (13, None), (None, None)):
        feature = feature_map(12, height, batch=batch)
        official = build("cbam", {"hidden": 2}, feature, opset=opset).operators
        assert sorted(official) == sorted([*CHANNEL, "Add", *SPATIAL])
        ultralytics = build("cbam[ultralytics]", feature=feature, opset=opset).operators
        assert sorted(ultralytics) == sorted(["ReduceMean", "Conv", "Add", "Sigmoid", "Mul", *SPATIAL])
        port = build("cbam[yolo-port]", {"hidden": 2}, feature, opset=opset).operators
        assert sorted(port) == sorted(CHANNEL + SPATIAL)


def test_operators_of_other_poolings_and_of_the_channel_part() -> None:
    def operators(pool_types: str) -> list[str]:
        settings = {"hidden": 2, "pool_types": pool_types, "spatial": False}
        return build("cbam", settings, feature_map(12)).operators

    assert operators("avg+max") == [*CHANNEL[:-2], "Add", *CHANNEL[-2:]]
    assert operators("avg") == ["ReduceMean", "Conv", "Relu", "Conv", "Add", "Sigmoid", "Mul"]
    assert operators("lp")[:3] == ["Mul", "ReduceSum", "Sqrt"]
    assert operators("lse")[:6] == ["ReduceMax", "Sub", "Exp", "ReduceSum", "Log", "Add"]
    with pytest.raises(BlockError, match=r"pool_types of cbam is one of avg, max, lp, lse, avg\+max, .*, not max\+avg"):
        make_block("cbam", {"pool_types": "max+avg"})
    built = build("cbam", {"hidden": 2, "pool_types": "avg+max+lp+lse"}, feature_map(12))
    stored = numpy_helper.to_array(built.constants["block.ChannelGate.mlp.3.bias"])
    np.testing.assert_array_equal(stored.ravel(), 4 * built.weights["ChannelGate.mlp.3.bias"].astype(np.float32))


def test_the_channel_part_alone_is_read_off_the_weights() -> None:
    given = random_weights(make_block("cbam", {"hidden": 2, "spatial": False}), feature_map(12))
    block, _ = fit(make_block("cbam"), feature_map(12), given)
    assert block.values["spatial"] is False


@pytest.mark.parametrize(("channels", "parts"), [(16, 8), (12, 4), (6, 2), (9, 0), (8, 8)])
def test_for_onnxruntime_no_wide_axis_is_reduced(channels: int, parts: int) -> None:
    for batch in (1, None):
        built = build("cbam", {"hidden": 2}, feature_map(channels, batch=batch), target="onnxruntime")
        assert built.lowering == "rows"
        assert built.operators.count("Slice") == parts
        assert built.operators.count("MatMul") == 1
        assert built.operators.count("ReduceMax") == (1 if channels == parts else 2)
    dynamic = build("cbam", {"hidden": 2}, feature_map(channels, None, batch=None), target="onnxruntime")
    assert dynamic.lowering == "gemm"


def test_the_second_layer_is_applied_once_with_twice_its_bias() -> None:
    built = build("cbam", {"hidden": 2}, feature_map(12))
    stored = numpy_helper.to_array(built.constants["block.ChannelGate.mlp.3.bias"])
    np.testing.assert_array_equal(stored.ravel(), 2 * built.weights["ChannelGate.mlp.3.bias"].astype(np.float32))
    assert sum("mlp.3.weight" in name for node in built.graph.node for name in node.input) == 1


@pytest.mark.parametrize(
    ("spelled", "first"),
    [
        ("cbam", "ReduceMax"),
        ("cbam[cv-attention]", "ReduceMax"),
        ("cbam[external-attention]", "ReduceMax"),
        ("cbam[ultralytics]", "ReduceMean"),
        ("cbam[timm]", "ReduceMean"),
        ("cbam[yolo-port]", "ReduceMean"),
    ],
)
def test_order_of_the_two_planes(spelled: str, first: str) -> None:
    settings = {} if "ultra" in spelled else {"hidden": 2}
    graph = build(spelled, settings, feature_map(12)).graph
    (concat,) = (node for node in graph.node if node.op_type == "Concat")
    makers = {node.output[0]: node.op_type for node in graph.node}
    assert makers[concat.input[0]] == first


def test_the_batch_norm_is_folded() -> None:
    built = build("cbam[timm]", {"hidden": 2, "bn_eps": 1e-3}, feature_map(12))
    given = random_weights(make_block("cbam[timm]", {"hidden": 2}), feature_map(12))
    bn = {part: given[f"spatial.conv.bn.{part}"].astype(float) for part in ("weight", "bias", "running_mean")}
    scale = bn["weight"] / np.sqrt(given["spatial.conv.bn.running_var"].astype(float) + 1e-3)
    stored = numpy_helper.to_array(built.constants["block.spatial.conv.conv.bias"])
    np.testing.assert_allclose(stored.ravel(), bn["bias"] - scale * bn["running_mean"], rtol=1e-6)


@pytest.mark.parametrize(
    ("spelled", "channels", "hidden"), [("cbam", 100, 6), ("cbam[timm]", 104, 7), ("cbam[timm]", 6, 1), ("cbam", 16, 1)]
)
def test_hidden_width(spelled: str, channels: int, hidden: int) -> None:
    shapes = make_block(spelled).parameters(feature_map(channels))
    (first, *_) = shapes.values()
    assert first[:2] == (hidden, channels)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(BlockError, match=r"/model\.8 has 8 channels; a reduction of 16 leaves no hidden channel"):
        build("cbam", feature=feature_map(8))
    with pytest.raises(BlockError, match="kernel of cbam is odd, not 4"):
        build("cbam", {"kernel": 4}, feature_map(16))
    with pytest.raises(BlockError, match=r"kernel of cbam\[ultralytics\] is one of 3, 7, not 5"):
        build("cbam[ultralytics]", {"kernel": 5}, feature_map(16))
    with pytest.raises(BlockError, match="has no hyper-parameter 'hidden'"):
        make_block("cbam[ultralytics]", {"hidden": 4})
    for variant in ("ultralytics", "timm", "yolo-port", "cv-attention", "external-attention"):
        with pytest.raises(BlockError, match=r"a gate without a bias.*gate='residual'"):
            make_block(f"cbam[{variant}]").identity(feature_map(32))


# ---------------------------------------------------------------------- weights from elsewhere


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize("channels", [48, 64])
def test_a_timm_module(timm_layers: ModuleType, channels: int, target: str) -> None:
    from timm.layers.cbam import CbamModule

    module = trained(CbamModule(channels, rd_ratio=1 / 12, spatial_kernel_size=5))
    built = inserted("cbam[timm]", {}, module.state_dict(), channels, target=target)
    assert built.block.values["hidden"] == round(channels / 12)
    assert built.block.values["kernel"] == 5
    assert_is(built, module)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize("kernel", [3, 7])
def test_an_ultralytics_module(kernel: int, target: str) -> None:
    conv = pytest.importorskip("ultralytics.nn.modules.conv")
    module = trained(conv.CBAM(32, kernel))
    built = inserted("cbam[ultralytics]", {}, module.state_dict(), 32, target=target)
    assert built.block.values == {"kernel": kernel}
    assert_is(built, module)


@pytest.mark.parametrize(
    ("fc", "conv"),
    [
        ("channel_attention.fc", "spatial_attention.conv1"),
        ("channel_attention.f", "spatial_attention.conv"),
        ("ca.fc", "sa.conv1"),
    ],
)
def test_keys_of_yolo_ports(fc: str, conv: str) -> None:
    feature = feature_map(24)
    given = random_weights(make_block("cbam[yolo-port]", {"hidden": 3}), feature)
    renamed = {
        key.replace("channel_attention.fc", fc).replace("spatial_attention.conv1", conv): value
        for key, value in given.items()
    }
    block, fitted = fit(make_block("cbam[yolo-port]"), feature, renamed)
    assert block.values["hidden"] == 3
    assert {key: value.tolist() for key, value in fitted.items()} == {k: v.tolist() for k, v in given.items()}


def test_weights_of_another_source_are_refused() -> None:
    """The same name means another function: no variant takes the weights of the other one."""
    feature = feature_map(32)
    for given, wanted in (("timm", "ultralytics"), ("yolo-port", "cv-attention"), ("ultralytics", "yolo-port")):
        arrays = random_weights(make_block(f"cbam[{given}]"), feature)
        with pytest.raises(WeightsError, match="lacks"):
            fit(make_block(f"cbam[{wanted}]"), feature, arrays)


def test_the_published_start_halves_behind_the_channel_gate() -> None:
    """The authors' ResNet starts with scale and shift 0 in the BatchNorm: a spatial gate of exactly one half."""
    feature = feature_map(16)
    given = make_block("cbam").initial(feature, np.random.default_rng(0))
    given["SpatialGate.spatial.bn.weight"] *= 0
    built = build("cbam", feature=feature, weights=given)
    x = torch.randn(1, 16, 13, 21, dtype=torch.float64).numpy()
    identity = make_block("cbam").identity(feature)
    spatial = {key: value for key, value in identity.items() if "Spatial" in key}
    channel_only = build("cbam", feature=feature, weights={**given, **spatial})
    np.testing.assert_allclose(built.expected(x), channel_only.expected(x) / 2, rtol=1e-12)


def test_padding_keeps_the_size() -> None:
    *_, conv = (n for n in build("cbam[ultralytics]", {"kernel": 3}).graph.node if n.op_type == "Conv")
    attributes = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
    assert attributes == {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
