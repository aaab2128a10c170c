"""GC: its two forms, what its variants differ in, and the weights of timm's module."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted, trained
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.harness import build, feature_map, random_weights

MEANS = ["Conv", "ReduceMax", "Sub", "Exp", "Mul", "ReduceMean", "ReduceMean", "Div"]
MATMUL = ["Reshape", "MatMul", "Softmax", "Reshape", "MatMul", "Reshape"]
TRANSFORM = ["Conv", "LayerNormalization", "Relu", "Conv"]


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_operators(opset: int) -> None:
    for height, batch in ((13, 1), (13, None), (None, None)):
        feature = feature_map(12, height, batch=batch)
        for target, pooling in (("tensorrt", MEANS), ("onnxruntime", MATMUL)):
            added = build("gc", {"hidden": 2}, feature, opset=opset, target=target)
            assert sorted(added.operators) == sorted([*pooling, *TRANSFORM, "Add", "Add"])
            gate = build("gc[official-mul]", {"hidden": 2}, feature, opset=opset, target=target)
            assert sorted(gate.operators) == sorted([*pooling, *TRANSFORM, "Sigmoid", "Mul"])


def test_before_opset_17_the_layer_norm_is_written_out() -> None:
    assert "LayerNormalization" not in build("gc", {"hidden": 2}, feature_map(12), opset=16).operators


@pytest.mark.parametrize("magnitude", [200.0, 2000.0])
@pytest.mark.parametrize("lowering", ["means", "matmul"])
def test_float16_holds_what_it_computes(lowering: str, magnitude: float) -> None:
    """On a large map, where a sum over the positions would leave the type, and with logits far apart."""
    feature = feature_map(8, 80, 80, "float16")
    given = random_weights(make_block("gc", {"hidden": 3}), feature)
    built = build("gc", {"hidden": 3}, feature, opset=13, lowering=lowering, weights=given)
    x = (np.random.default_rng(1).standard_normal((1, 8, 80, 80)) * magnitude).astype(np.float16)
    assert np.isfinite(Runtime(built.model, optimise=False)(x)).all()


@pytest.mark.parametrize(
    ("spelled", "channels", "hidden"), [("gc", 100, 6), ("gc[timm]", 100, 13), ("gc[timm]", 2, 1), ("gc", 16, 1)]
)
def test_hidden_width(spelled: str, channels: int, hidden: int) -> None:
    shapes = make_block(spelled).parameters(feature_map(channels))
    assert (hidden, channels, 1, 1) in shapes.values()


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(BlockError, match=r"/model\.8 has 8 channels; a reduction of 16 leaves no hidden channel"):
        build("gc", feature=feature_map(8))


def test_one_hidden_channel_is_warned_of() -> None:
    assert "is a constant" in make_block("gc").warnings(feature_map(16))[0]
    assert make_block("gc").warnings(feature_map(32)) == []
    built = build("gc", {"hidden": 1}, feature_map(8))
    x = np.random.default_rng(1).standard_normal((2, 8, 13, 21))
    added = built.expected(x) - x
    np.testing.assert_allclose(added, np.broadcast_to(added[:1, :, :1, :1], added.shape), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize("add", [True, False])
def test_a_timm_module(timm_layers: ModuleType, add: bool, target: str) -> None:
    from timm.layers.global_context import GlobalContext

    module = trained(GlobalContext(40, fuse_add=add, fuse_scale=not add))
    built = inserted("gc[timm-add]" if add else "gc[timm]", {}, module.state_dict(), 40, target=target)
    assert built.block.values["hidden"] == 5
    assert_is(built, module)
