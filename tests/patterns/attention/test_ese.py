"""eSE: its operators, and the weights of timm's module."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.patterns.attention.carried import assert_is, inserted
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.harness import build, feature_map


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_operators(opset: int) -> None:
    for height, batch in ((13, 1), (13, None), (None, None)):
        feature = feature_map(12, height, batch=batch)
        assert build("ese", feature=feature, opset=opset).operators == ["ReduceMean", "Conv", "Clip", "Mul"]
        for_cpu = build("ese", feature=feature, opset=opset, target="onnxruntime")
        assert for_cpu.operators == ["ReduceMean", "Gemm", "Clip", "Reshape", "Mul"]


def test_the_layer_takes_the_slope_and_the_half() -> None:
    built = build("ese")
    weight, bias = (numpy_helper.to_array(built.constants[f"block.fc.{part}"]) for part in ("weight", "bias"))
    np.testing.assert_allclose(weight, built.weights["fc.weight"] / 6, rtol=1e-6)
    np.testing.assert_allclose(bias, built.weights["fc.bias"] / 6 + 0.5, rtol=1e-6)


def test_the_gate_reaches_both_ends() -> None:
    feature = feature_map(4)
    given = {
        "fc.weight": np.zeros((4, 4, 1, 1), np.float32),
        "fc.bias": np.array([-3.1, 0.0, 1.5, 3.1], np.float32),
    }
    y = Runtime(build("ese", feature=feature, weights=given).model)(np.ones((1, 4, 13, 21), np.float32))
    np.testing.assert_allclose(y[0, :, 0, 0], [0, 0.5, 0.75, 1], rtol=1e-6)


def test_the_bounds_stand_where_the_opset_wants_them() -> None:
    for opset, inputs in ((9, 1), (10, 1), (11, 3), (13, 3)):
        (clip,) = (node for node in build("ese", opset=opset).graph.node if node.op_type == "Clip")
        assert len(clip.input) == inputs
        found = {a.name: helper.get_attribute_value(a) for a in clip.attribute}
        assert found == ({} if inputs == 3 else {"min": 0.0, "max": 1.0})


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize("channels", [24, 64])
def test_a_timm_module(timm_layers: ModuleType, channels: int, target: str) -> None:
    module = timm_layers.EffectiveSEModule(channels)
    assert_is(inserted("ese", {}, module.state_dict(), channels, target=target), module)
