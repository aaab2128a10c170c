"""SK: its operators, its widths, and the weights of timm's module."""

from __future__ import annotations

from types import ModuleType

import pytest

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted, trained
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights

PATH = ["Conv", "Relu"]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_operators(opset: int) -> None:
    """Of two paths there is no softmax left."""
    for height, batch in ((13, 1), (13, None), (None, None)):
        feature = feature_map(12, height, batch=batch)
        two = [*PATH * 2, "ReduceMean", "ReduceMean", "Add", *PATH, "Conv", "Sigmoid", "Sub", "Mul", "Add"]
        for spelled in ("sk", "sk[official]"):
            assert sorted(build(spelled, {"groups": 2, "hidden": 3}, feature, opset=opset).operators) == sorted(two)
        timm = build("sk[timm]", feature=feature, opset=opset).operators
        assert sorted(timm) == sorted([*two, "Slice", "Slice"])
        four = build("sk[external-attention]", feature=feature, opset=opset).operators
        assert four.count("Conv") == 4 + 1 + 4
        assert four.count("Softmax") == 1


@pytest.mark.parametrize("channels", [32, 48, 64, 128, 200, 256, 384, 512])
def test_hidden_width_is_timms(timm_layers: ModuleType, channels: int) -> None:
    shapes = make_block("sk[timm]").parameters(feature_map(channels))
    assert shapes["attn.fc_reduce.weight"] == tuple(timm_layers.SelectiveKernel(channels).attn.fc_reduce.weight.shape)


def test_other_hidden_widths() -> None:
    assert make_block("sk[official]").parameters(feature_map(256))["conv_fc1.weight"][0] == 16
    for channels, hidden in ((128, 32), (256, 32), (1024, 64)):  # those of the authors' prototxt
        assert make_block("sk").parameters(feature_map(channels))["fc.0.weight"][:2] == (hidden, channels)
    port = make_block("sk[external-attention]")
    assert port.parameters(feature_map(256))["fc.weight"] == (32, 256)
    assert port.parameters(feature_map(1024))["fc.weight"] == (64, 1024)


def test_what_cannot_work_is_refused() -> None:
    for spelled in ("sk", "sk[official]"):
        with pytest.raises(BlockError, match=r"/model\.8 has 48 channels, which 32 groups do not divide"):
            build(spelled, feature=feature_map(48))
    with pytest.raises(BlockError, match=r"has 8 channels; a sixteenth of them is none: give hidden"):
        build("sk[official]", {"groups": 1}, feature_map(8))
    with pytest.raises(BlockError, match=r"has 9 channels, and sk\[timm\] halves them"):
        build("sk[timm]", feature=feature_map(9))
    with pytest.raises(BlockError, match=r"has 12 channels, and sk\[timm\] takes half of them in 4 groups"):
        build("sk[timm]", {"groups": 4}, feature_map(12))
    for variant in ("paper", "official", "external-attention", "timm"):
        with pytest.raises(BlockError, match="no setting that leaves its input as it is"):
            make_block(f"sk[{variant}]").identity(feature_map(64))


def test_a_heavy_one_is_warned_of() -> None:
    """84 C^2 weights in four convolutions."""
    warning = make_block("sk[external-attention]").warnings(feature_map(512))
    assert warning[0].startswith("sk[external-attention] has 22.1 million parameters at 512 channels")
    assert make_block("sk").warnings(feature_map(512)) == []


def test_settings_follow_from_the_weights() -> None:
    feature = feature_map(64)
    for spelled in ("sk", "sk[official]", "sk[external-attention]"):
        given = random_weights(make_block(spelled, {"groups": 4, "hidden": 7}), feature)
        block, _ = fit(make_block(spelled), feature, given)
        assert block.values["groups"] == 4
        assert block.values["hidden"] == 7


def test_what_was_made_before_names_its_variant() -> None:
    """A record and an attachment hold the variant; the bare name is the paper's block."""
    assert make_block("sk").spelled == "sk[paper]"
    assert make_block("sk[official]").parameters(feature_map(64))["conv2.weight"] == (64, 64, 3, 3)


def test_biases_follow_from_the_weights() -> None:
    feature = feature_map(64)
    for bias in (True, False):
        given = random_weights(make_block("sk", {"bias": bias}), feature)
        assert fit(make_block("sk"), feature, given)[0].values["bias"] is bias


@pytest.mark.parametrize(
    ("settings", "asked", "read"),
    [
        ({"split": False}, {}, {"split": False, "groups": 1}),
        ({}, {}, {"split": True, "groups": 1}),
        ({"split": False, "groups": 32}, {}, {"split": False, "groups": 32}),
        ({"split": False, "groups": 2}, {"split": False}, {"split": False, "groups": 2}),
        ({"groups": 4}, {"split": True}, {"split": True, "groups": 4}),
    ],
)
def test_how_timm_divides_follows_from_the_weights(
    settings: dict[str, object], asked: dict[str, object], read: dict[str, object]
) -> None:
    """Half of the channels and all of them in two groups have the same shapes; timm's models have the former."""
    feature = feature_map(64)
    given = random_weights(make_block("sk[timm]", settings), feature)
    block, _ = fit(make_block("sk[timm]", asked), feature, given)
    assert {name: block.values[name] for name in read} == read


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_a_timm_module(timm_layers: ModuleType, target: str) -> None:
    module = trained(timm_layers.SelectiveKernel(24, rd_channels=5))
    built = inserted("sk[timm]", {}, module.state_dict(), 24, target=target)
    assert built.block.values["hidden"] == 5
    assert_is(built, module, atol=1e-6)


@pytest.mark.parametrize("kernels", ["3,5", "1,3,5,7", "1,3,5,7,9"])
def test_kernels_follow_from_the_weights(kernels: str) -> None:
    feature = feature_map(12)
    given = random_weights(make_block("sk[external-attention]", {"kernels": kernels, "hidden": 4}), feature)
    block, fitted = fit(make_block("sk[external-attention]"), feature, given)
    assert block.values["kernels"] == kernels
    assert set(fitted) == set(given)


@pytest.mark.parametrize("kernels", ["3,4", "3", "", "a,3", "3,,5", "3 5"])
def test_kernels_are_odd_numbers(kernels: str) -> None:
    with pytest.raises(BlockError, match=r"kernels of sk is odd numbers as in 1,3,5,7, not "):
        build("sk[external-attention]", {"kernels": kernels, "hidden": 4}, feature_map(12))
