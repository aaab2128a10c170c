"""SE: its two forms, its hidden width, and the weights of the modules that people have."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from graphsurgery.errors import BlockError, WeightsError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import Array, Built, build, feature_map
from tests.patterns.attention.verdicts import assert_close

CONVOLUTION = ["ReduceMean", "Conv", "Relu", "Conv", "Sigmoid", "Mul"]
GEMM = ["ReduceMean", "Gemm", "Relu", "Gemm", "Sigmoid", "Reshape", "Mul"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("opset", [9, 17, 18])
def test_operators(opset: int, bias: bool) -> None:
    settings = {"reduction": 2, "bias": bias}
    for height, batch in ((13, 1), (13, None), (None, None)):
        built = build("se", settings, feature_map(height=height, batch=batch), opset=opset)
        assert built.operators == CONVOLUTION
        convolutions = [node for node in built.graph.node if node.op_type == "Conv"]
        assert [len(node.input) for node in convolutions] == [3 if bias else 2] * 2
    if bias or opset >= 11:
        assert build("se", settings, opset=opset, lowering="gemm").operators == GEMM


@pytest.mark.parametrize("opset", [9, 17, 18])
def test_operators_of_other_activations(opset: int) -> None:
    def operators(lowering: str, **settings: object) -> list[str]:
        return build("se", {"reduction": 2, **settings}, opset=opset, lowering=lowering).operators

    silu = ["Sigmoid", "Mul"]
    assert operators("convolution", activation="silu") == ["ReduceMean", "Conv", *silu, "Conv", "Sigmoid", "Mul"]
    # OpenCV takes a HardSigmoid before a Mul for a hard swish, whatever it is multiplied with
    assert operators("convolution", gate="hard-sigmoid") == [*CONVOLUTION[:4], "Clip", "Mul"]
    assert operators("gemm", gate="hard-sigmoid") == [*GEMM[:4], "Clip", "Reshape", "Mul"]


def test_a_gemm_needs_something_to_add_before_opset_11() -> None:
    block, feature = make_block("se", {"bias": False, "hidden": 2}), feature_map()
    assert list(block.lowerings(feature, 10)) == ["convolution"]
    assert "gemm" in block.lowerings(feature, 11)
    assert build("se", block.values, feature, opset=10, target="onnxruntime").lowering == "convolution"


def test_the_weights_stand_in_the_model_as_they_are() -> None:
    built = build("se", {"hidden": 3})
    constants = built.constants
    assert len(constants) == 4
    for key, shape in make_block("se", {"hidden": 3}).parameters(feature_map()).items():
        tensor = numpy_helper.to_array(constants[f"block.{key}"])
        assert tensor.shape == shape
        np.testing.assert_array_equal(tensor, built.weights[key].astype(np.float32))


@pytest.mark.parametrize("lowering", ["convolution", "gemm"])
def test_any_batch_and_size_through_one_dynamic_template(lowering: str) -> None:
    built = build("se", {"hidden": 3}, feature_map(height=None, width=None, batch=None), lowering=lowering)
    run = Runtime(built.model)
    for shape in ((1, 6, 20, 20), (7, 6, 1, 1), (2, 6, 5, 33)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        assert_close(run(x), built.expected(x), x, "float32", str(shape))


# ---------------------------------------------------------------------- hyper-parameters


@pytest.mark.parametrize(
    ("channels", "settings", "hidden"),
    [
        (64, {}, 4),
        (100, {}, 6),
        (64, {"reduction": 4}, 16),
        (64, {"reduction": 4, "hidden": 5}, 5),
        (8, {"hidden": 1}, 1),
    ],
)
def test_hidden_width(channels: int, settings: dict[str, object], hidden: int) -> None:
    shapes = make_block("se", settings).parameters(feature_map(channels))
    assert shapes["fc1.weight"] == (hidden, channels, 1, 1)
    assert shapes["fc2.weight"] == (channels, hidden, 1, 1)


def test_a_reduction_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(BlockError, match=r"/model\.8 has 8 channels; a reduction of 16 leaves no hidden channel"):
        build("se", feature=feature_map(8))
    build("se", feature=feature_map(16))


def test_no_identity_without_biases() -> None:
    with pytest.raises(BlockError, match=r"se has no biases and cannot leave its input as it is.*gate='residual'"):
        make_block("se", {"bias": False}).identity(feature_map(32))


# ---------------------------------------------------------------------- weights from elsewhere


def inserted(state: dict[str, Any], channels: int) -> Built:
    """A template with the weights of another module, as ``--weights`` reads them."""
    feature = feature_map(channels, batch=2)
    arrays = {key: value.detach().numpy() for key, value in state.items()}
    block, given = fit(make_block("se"), feature, arrays)
    return build("se", block.values, feature, weights=given)


def assert_is(built: Built, module: torch.nn.Module) -> None:
    x = np.random.default_rng(3).standard_normal((2, built.feature.channels, 13, 21)).astype(np.float32)
    with torch.no_grad():
        expected = module.double().eval()(torch.from_numpy(x).double()).numpy()
    assert_close(Runtime(built.model)(x), expected, x, "float32")
    np.testing.assert_allclose(built.expected(x), expected, rtol=1e-7)


@pytest.mark.parametrize("channels", [64, 96, 256])
def test_a_timm_module(timm_layers: ModuleType, channels: int) -> None:
    """timm rounds the hidden width to a multiple of 8: it has to be read off the weights."""
    module = timm_layers.SEModule(channels)
    built = inserted(module.state_dict(), channels)
    assert built.block.values["hidden"] == module.fc1.weight.shape[0]
    assert_is(built, module)


def test_a_torchvision_module(torchvision_misc: ModuleType) -> None:
    module = torchvision_misc.SqueezeExcitation(48, 7)
    assert_is(inserted(module.state_dict(), 48), module)


class Port(torch.nn.Module):
    """SE as most PyTorch ports have it: linear layers, with names of their own and often without biases."""

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        nn = torch.nn
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias), nn.ReLU(), nn.Linear(hidden, channels, bias), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate: torch.Tensor = self.fc(x.mean((2, 3)))
        return x * gate[:, :, None, None]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("names", [("fc.0", "fc.2"), ("l1", "l2"), ("conv_reduce", "conv_expand"), ("down", "up")])
def test_a_port_with_linear_layers(names: tuple[str, str], bias: bool) -> None:
    module = Port(32, 5, bias)
    state = module.state_dict()
    renamed = {key.replace("fc.0", names[0]).replace("fc.2", names[1]): value for key, value in state.items()}
    built = inserted(renamed, 32)
    assert built.block.recorded_values() == {"reduction": 16, "hidden": 5, "bias": bias}
    assert_is(built, module)


def test_weights_for_other_channels_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"/model.8 has 64 channels; fc.0.weight is made for 32"):
        inserted(Port(32, 4, True).state_dict(), 64)


def test_a_weight_that_float16_cannot_hold_is_refused() -> None:
    feature = feature_map(dtype="float16")
    given: dict[str, Array] = {k: np.ones(v) for k, v in make_block("se", {"hidden": 2}).parameters(feature).items()}
    given["fc2.weight"] = given["fc2.weight"] * 1e5
    with pytest.raises(WeightsError, match=r"fc2.weight reaches 1e\+05, more than float16 can hold"):
        build("se", {"hidden": 2}, feature, weights=given)
