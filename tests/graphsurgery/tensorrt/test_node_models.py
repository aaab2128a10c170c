"""The table against NVIDIA's parser and builder, on the models that onnx has for every operator."""

from __future__ import annotations

import onnx
import pytest

from tests.graphsurgery.tensorrt import node_models
from tests.graphsurgery.tensorrt.node_models import BUILT, PARSED, REFUSED

RECORDED = node_models.recorded()
LEAST = 0.98
"""the share of the models refused or built that the table has to judge alike"""

same_onnx = pytest.mark.skipif(
    onnx.__version__ != node_models.asked()["onnx"],
    reason=f"the verdicts are those of the models of onnx {node_models.asked()['onnx']}",
)


@pytest.fixture(scope="module")
def otherwise() -> set[str]:
    """The models that the table judges otherwise than the parser and the builder."""
    return {
        name
        for name, model in node_models.models()
        if not node_models.agrees(RECORDED[name], taken=node_models.is_taken(model))
    }


@same_onnx
def test_every_model_is_recorded() -> None:
    assert {name for name, _ in node_models.models()} == set(RECORDED)
    assert len(RECORDED) == 1884


@same_onnx
def test_the_list_of_disagreements_is_exact(otherwise: set[str]) -> None:
    """A rule that changes a verdict, for better or worse, changes the list."""
    assert otherwise == set(node_models.reasons())


@same_onnx
def test_almost_all_models_are_judged_alike(otherwise: set[str]) -> None:
    decided = {name for name, verdict in RECORDED.items() if verdict != PARSED}
    assert 1 - len(otherwise & decided) / len(decided) >= LEAST


def test_every_disagreement_has_a_reason_of_its_own() -> None:
    groups = node_models._data("disagreements")
    names = [name for group in groups for name in group["models"]]
    assert len(names) == len(set(names)) == len(node_models.reasons())
    assert set(names) <= set(RECORDED)
    assert len({group["reason"] for group in groups}) == len(groups)
    for group in groups:
        assert {RECORDED[name] for name in group["models"]} == {group["parser"]}


def test_a_wheel_that_says_otherwise_is_told_with_the_difference() -> None:
    assert node_models.differences(RECORDED) == []
    other = {**RECORDED, "abs": REFUSED, "new": BUILT}
    del other["acos"]
    assert node_models.differences(other) == [
        "abs: built, and now refused",
        "acos: built, and now not asked",
        "new: unknown, and now built",
    ]
