"""The forms for onnxruntime that several blocks share: where they are used, and that they change no value."""

from __future__ import annotations

import pytest

from graphsurgery.feature_map import FeatureMap
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.harness import build, feature_map
from tests.patterns.attention.verdicts import assert_agrees

CROSSED = ["coordatt", "coordatt[timm]", "ela[base]", "ela[small]", "ela[cv-attention]", "ela[timm]", "scsa", "ema"]
IN_STEPS = ["cbam", "cbam[ultralytics]", "cbam[cv-attention]", "triplet", "lsk", "lsk[attention]"]
WHOLE = feature_map(32, 20, 16, batch=2)
"""whole blocks of 16 channels, and sides in steps of 4"""


def operators(spelled: str, feature: FeatureMap, opset: int = 17, target: str = "onnxruntime") -> list[str]:
    """The operators of a block that agrees with its module there."""
    built = build(spelled, feature=feature, opset=opset, target=target)
    assert_agrees(built, Runtime(built.model))
    return built.operators


@pytest.mark.parametrize("opset", [9, 18])
@pytest.mark.parametrize("spelled", CROSSED)
def test_gates_of_rows_and_columns_are_multiplied_as_matrices(spelled: str, opset: int) -> None:
    for feature in (WHOLE, feature_map(32, None, batch=None)):
        plain = build(spelled, feature=feature, opset=opset).operators
        assert operators(spelled, feature, opset).count("MatMul") == plain.count("MatMul") + 1


@pytest.mark.parametrize("spelled", CROSSED)
def test_small_maps_in_whole_blocks_of_channels_are_pooled(spelled: str) -> None:
    pooled = operators(spelled, WHOLE).count("AveragePool")
    for feature in (feature_map(32, 48, 40), feature_map(32, None, batch=None)):
        assert operators(spelled, feature).count("AveragePool") == pooled - 2
    if not spelled.startswith(("ela", "scsa", "ema")):  # which want more channels
        assert operators(spelled, feature_map(24, 20, 16)).count("AveragePool") == pooled - 2


@pytest.mark.parametrize("opset", [9, 18])
@pytest.mark.parametrize("spelled", IN_STEPS)
def test_planes_are_convolved_in_steps_where_they_have_whole_ones(spelled: str, opset: int) -> None:
    assert "DepthToSpace" in operators(spelled, WHOLE, opset)
    assert "DepthToSpace" not in operators(spelled, feature_map(30, 18, 15), opset)
    assert "DepthToSpace" not in operators(spelled, WHOLE, opset, "tensorrt")


def test_a_plane_of_channels_and_rows_may_have_whole_steps_alone() -> None:
    """Triplet's three planes: 32 x 15 and 18 x 32 have none, 16 x 12 has."""
    assert operators("triplet", feature_map(32, 18, 15)).count("DepthToSpace") == 0
    assert operators("triplet", feature_map(32, 18, 16)).count("DepthToSpace") == 1
    assert operators("triplet", feature_map(30, 12, 16)).count("DepthToSpace") == 1
    assert operators("triplet", WHOLE).count("DepthToSpace") == 3


@pytest.mark.parametrize(("groups", "gathers"), [(4, 2), (2, 2), (1, 3)])
def test_halves_take_turns_in_runs_where_the_groups_are_even(groups: int, gathers: int) -> None:
    built = build("shuffle", {"groups": groups}, WHOLE, target="onnxruntime")
    assert_agrees(built, Runtime(built.model))
    assert built.operators.count("Gather") == gathers
