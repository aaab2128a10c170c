"""AIFI: the modules of Ultralytics and transformers with their weights, the two layouts of positions, float16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphsurgery.errors import BlockError
from graphsurgery.patterns.attention.aifi import positions
from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import inserted
from tests.patterns.attention.evaluators import Runtime, Stepwise
from tests.patterns.attention.harness import Built, build, feature_map
from tests.patterns.attention.verdicts import assert_agrees

SETTINGS: dict[str, object] = {"heads": 2}


def assert_is(built: Built, module: torch.nn.Module) -> None:
    """Both compute their positions in float32, which is what the tolerance is for."""
    x = np.random.default_rng(3).standard_normal((2, built.feature.channels, 13, 21)).astype(np.float32)
    with torch.no_grad():
        result = module.double().eval()(torch.from_numpy(x).double())
    expected = (result[0] if isinstance(result, tuple) else result).numpy()
    np.testing.assert_allclose(built.expected(x), expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(Runtime(built.model)(x), expected, rtol=0, atol=4e-5)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Biases and LayerNorms that are not those of the first moment."""
    torch.manual_seed(4)
    for key, values in module.named_parameters():
        if values.ndim == 1:
            torch.nn.init.normal_(values, mean=float(key.endswith("weight")), std=0.3)
    return module


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
@pytest.mark.parametrize("before", [False, True])
def test_an_ultralytics_module(before: bool, target: str) -> None:
    transformer = pytest.importorskip("ultralytics.nn.modules.transformer")
    module = shaken(transformer.AIFI(16, 24, 2, normalize_before=before))
    settings = {**SETTINGS, "normalize_before": before}
    built = inserted("aifi[ultralytics]", settings, module.state_dict(), 16, target=target)
    assert built.block.values["hidden"] == 24
    assert_is(built, module)


def transformers_layer() -> torch.nn.Module:
    rt_detr: Any = pytest.importorskip("transformers.models.rt_detr.modeling_rt_detr")
    from transformers import RTDetrConfig

    config = RTDetrConfig(encoder_hidden_dim=16, encoder_ffn_dim=24, num_attention_heads=2, encoder_attention_heads=2)
    config._attn_implementation = "eager"
    return shaken(rt_detr.RTDetrAIFILayer(config))


def test_a_transformers_module(torchvision_misc: object) -> None:
    """Its q, k and v are layers of their own, and its activation the exact GELU."""
    module = transformers_layer()
    state = {key.removeprefix("layers.0."): values for key, values in module.state_dict().items()}
    fitting = []
    for variant in ("rtdetr", "ultralytics"):
        built = inserted(f"aifi[{variant}]", SETTINGS, state, 16)
        try:
            assert_is(built, module)
            fitting.append(variant)
        except AssertionError:
            continue
    assert len(fitting) == 1, "the layouts differ on a map that is not square, and its is one of the two"


def test_the_layouts_differ_on_maps_that_are_not_square_and_only_there() -> None:
    for size, same in (((7, 7), True), ((7, 9), False)):
        assert np.array_equal(positions(8, *size, by_rows=True), positions(8, *size, by_rows=False)) is same


@pytest.mark.parametrize("by_rows", [True, False])
def test_positions_are_the_published_ones(by_rows: bool) -> None:
    """The published table, made in its own loops and then read row by row."""
    channels, height, width = 8, 3, 5
    order = [(y, x) for y in range(height) for x in range(width)]
    if not by_rows:
        order = [(x, y) for x in range(width) for y in range(height)]
    for number, coordinates in enumerate(order):
        code = []
        for coordinate in coordinates:
            angles = [coordinate / 10000 ** (i / (channels // 4)) for i in range(channels // 4)]
            code += [*map(np.sin, angles), *map(np.cos, angles)]
        found = positions(channels, height, width, by_rows=by_rows)[:, number // width, number % width]
        np.testing.assert_allclose(found, code, atol=1e-12)


@pytest.mark.parametrize(("opset", "norms"), [(16, 0), (17, 2), (21, 2)])
def test_layer_norm_is_one_operator_from_opset_17_on(opset: int, norms: int) -> None:
    for dtype in ("float32", "float16"):
        operators = build("aifi", SETTINGS, feature_map(12, dtype=dtype), opset=opset).operators
        assert operators.count("LayerNormalization") == norms
        assert not {"Shape", "Gather", "Expand"} & set(operators)


def test_what_it_cannot_be_put_on_is_refused() -> None:
    with pytest.raises(BlockError, match=r"/model\.8 has 12 channels, which 8 heads do not divide"):
        build("aifi", feature=feature_map(12))
    with pytest.raises(BlockError, match=r"/model\.8 has 6, no multiple of 4"):
        build("aifi", SETTINGS, feature_map(6))
    with pytest.raises(BlockError, match=r"codes the position on the map, and /model\.8 has a dynamic height or width"):
        build("aifi", SETTINGS, feature_map(12, None, 20))


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("before", [False, True])
def test_float16_at_200(before: bool, opset: int) -> None:
    feature = feature_map(64, 12, 9, "float16")
    settings = {"hidden": 32, "normalize_before": before}
    block = make_block("aifi", settings)
    given = block.initial(feature, np.random.default_rng(2))
    built = build("aifi", settings, feature, weights=given, opset=opset)
    x = np.random.default_rng(0).standard_normal((1, 64, 12, 9))
    x = (200 * x / np.abs(x).max() + 20).astype(np.float16)
    assert_agrees(built, Stepwise(built.model), [("magnitude 200", x)], rounded=True)
