"""ELA: its six forms, the weights of timm's module, and the channels that it needs."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch

from graphsurgery.errors import BlockError
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted
from tests.patterns.attention.evaluators import evaluators
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights
from tests.patterns.attention.test_templates import check
from tests.patterns.attention.verdicts import assert_agrees, assert_tensorrt_friendly

FORMS = ["base", "tiny", "small", "large", "cv-attention", "timm"]


@pytest.mark.parametrize("variant", FORMS)
@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_every_form_at_its_own_settings(variant: str, target: str) -> None:
    for feature in (feature_map(64, 9, 14, batch=3), feature_map(32, None, None, batch=None)):
        built = build(f"ela[{variant}]", feature=feature, target=target, opset=18)
        for run in evaluators(built):
            assert_agrees(built, run)
        if target == "tensorrt":
            assert_tensorrt_friendly(built)


@pytest.mark.parametrize("variant", ["small", "large"])
@pytest.mark.parametrize(("opset", "dtype"), [(11, "float32"), (13, "float16"), (18, "float16"), (21, "float32")])
def test_forms_that_read_eight_channels(variant: str, opset: int, dtype: str) -> None:
    block = make_block(f"ela[{variant}]", {"norm_groups": 4})
    for feature in (feature_map(24, 9, 14, dtype, 3), feature_map(16, None, None, dtype, None)):
        for lowering in block.lowerings(feature, opset):
            check(build(block.spelled, {"norm_groups": 4}, feature, opset=opset, lowering=lowering))


@pytest.mark.long
@pytest.mark.parametrize("variant", ["small", "large"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("opset", [13, 17, 18, 21, 22])
def test_forms_that_read_eight_channels_everywhere(variant: str, opset: int, dtype: str) -> None:
    for batch in (1, 3, None):
        for size in ((20, 20), (13, 21), (1, 9), (None, None)):
            feature = feature_map(24, *size, dtype, batch)
            for lowering in make_block("ela").lowerings(feature, opset):
                check(build(f"ela[{variant}]", {"norm_groups": 4}, feature, opset=opset, lowering=lowering), "all")


@pytest.mark.parametrize("skip", [False, True])
def test_a_timm_module(timm_layers: ModuleType, skip: bool) -> None:
    coord_attn = importlib.import_module(f"{timm_layers.__name__}.coord_attn")
    module = coord_attn.EfficientLocalAttn(24, kernel_size=5, has_skip=skip)
    for norm in (module.norm_h, module.norm_w):
        torch.nn.init.uniform_(norm.weight, -2, 2)
        torch.nn.init.uniform_(norm.bias, -2, 2)
    built = inserted("ela[timm]", {"skip": skip}, module.state_dict(), 24)
    assert built.block.values["kernel_size"] == 5
    assert_is(built, module)


@pytest.mark.parametrize("names", [("con1", "GN"), ("conv1x1.0", "conv1x1.1"), ("conv", "gn")])
def test_keys_of_ports(names: tuple[str, str]) -> None:
    feature = feature_map(32)
    given = random_weights(make_block("ela[base]"), feature)
    renamed = {names[key.startswith("gn")] + "." + key.partition(".")[2]: values for key, values in given.items()}
    _, fitted = fit(make_block("ela"), feature, renamed)
    assert {key: values.tolist() for key, values in fitted.items()} == {k: v.tolist() for k, v in given.items()}


def test_channels_that_do_not_fit_are_refused() -> None:
    for channels in (24, 40):
        with pytest.raises(BlockError, match=rf"/model.8 has {channels} channels, no multiple of the 16 groups to"):
            build("ela", feature=feature_map(channels))
    with pytest.raises(BlockError, match="no multiple of the 32 groups"):
        build("ela[tiny]", feature=feature_map(48))
    with pytest.raises(BlockError, match="no multiple of the 8 channels a convolution"):
        build("ela[small]", {"norm_groups": 4}, feature_map(12))
    with pytest.raises(BlockError, match="kernel_size of ela is odd, not 4"):
        build("ela", {"kernel_size": 4}, feature_map(16))


def test_a_skip_has_no_identity() -> None:
    with pytest.raises(BlockError, match="gate='residual'"):
        make_block("ela[timm]", {"skip": True}).identity(feature_map(16))


def test_a_common_factor_of_the_convolution_does_not_count() -> None:
    """The normalisation takes it out again: an untrained scale is no scale of the output."""
    feature = feature_map(16)
    given = random_weights(make_block("ela"), feature)
    x = np.random.default_rng(1).standard_normal((1, 16, 13, 21))
    y = build("ela", feature=feature, weights=given).expected(x)
    doubled = build("ela", feature=feature, weights={**given, "conv.weight": given["conv.weight"] * 2}).expected(x)
    np.testing.assert_allclose(doubled, y, atol=1e-2)
