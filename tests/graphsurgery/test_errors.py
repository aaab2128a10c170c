"""Errors as programs read them: the option that is the cause, and what could have been meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import graphsurgery as gsx
from graphsurgery.blocks.registry import catalogue_block
from graphsurgery.errors import BlockError, GraphSurgeryError, RequestError, concerning, option
from graphsurgery.tensorrt.commands import plan
from tests import models

SE = {"module": "se", "after": "/model.2"}


def insert(**given: Any) -> gsx.ModelFile:
    return gsx.insert(models.detector(), **{"module": "simam", "after": "/model.2", **given})


@pytest.mark.parametrize(
    ("given", "concerned", "candidate"),
    [
        ({"module": "sinam"}, "module", "simam"),
        ({"module": "ge[theta]x"}, "module", None),
        ({"module": "ge[zeta]"}, "module", "ge[theta]"),
        ({"module": "./gone.onnx"}, "module", None),
        ({"module": "gone.blocks:Mine"}, "module", None),
        ({"settings": {"lambda": 1}}, "settings", "e_lambda"),
        ({"settings": {"e_lambda": "x"}}, "settings", None),
        ({**SE, "settings": {"reduction": 0}}, "settings", None),
        ({"lowering": "gone"}, "lowering", "mean"),
        ({"after": "/model.80"}, "after", None),
        ({"after": "tensor:gone"}, "after", None),
        ({"after": (), "before": "/model.80"}, "before", None),
        ({"consumers": "/model.80"}, "consumers", None),
        ({"consumers": "/model.0"}, "consumers", "/model.3"),
        ({**SE, "weights": "gone.npz"}, "weights", None),
        ({**SE, "weights": "gone.docx"}, "weights", None),
        ({"module": "eca", "init": "identity"}, "init", None),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_option_of_an_insertion(given: dict[str, Any], concerned: str, candidate: str | None) -> None:
    with pytest.raises(GraphSurgeryError) as raised:
        insert(**given)
    assert raised.value.option == concerned
    assert candidate is None or candidate in raised.value.candidates


@pytest.mark.parametrize(
    ("function", "given", "concerned", "candidate"),
    [
        (gsx.sites, {"selector": "/model.80"}, "selector", None),
        (gsx.remove, {"ids": ["gone"]}, "ids", "model.2.simam"),
        (gsx.check, {"version": "9"}, "version", "8.6"),
        (gsx.check, {"dla": "xavier"}, "dla", "orin"),
        (gsx.check, {"precision": "fp17"}, "precision", "fp16"),
        (gsx.verify, {"providers": ["gpu"]}, "providers", "cuda"),
        (gsx.verify, {"images": "gone"}, "images", None),
        (gsx.verify, {"only": ["gone"]}, "only", "model.2.simam"),
        (gsx.verify, {"trust": "mine"}, "trust", None),
        (gsx.bench, {"providers": ["gpu"]}, "providers", "cuda"),
        (gsx.bench, {"shapes": {"gone": (1, 3, 8, 8)}}, "shapes", "images"),
        (gsx.bench, {"batch": 77}, "batch", None),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_option_of_other_functions(function: Any, given: dict[str, Any], concerned: str, candidate: str) -> None:
    with pytest.raises(GraphSurgeryError) as raised:
        function(insert(), **given)
    assert raised.value.option == concerned
    assert candidate is None or candidate in raised.value.candidates


def test_an_output_that_exists_is_the_cause_and_force_the_remedy(tmp_path: Path) -> None:
    path = insert().save(tmp_path / "a.onnx")
    with pytest.raises(RequestError, match="use force=True") as raised:
        insert().save(path)
    assert raised.value.option == "output"


def test_tensorrt_without_a_dla() -> None:
    with pytest.raises(RequestError) as raised:
        plan(insert(), "a.onnx", version="11", dla=0)
    assert raised.value.option == "dla"


def test_a_stated_option_stays_and_a_remedy_gives_way() -> None:
    for stated, expected in ((None, "module"), ("settings", "settings")):
        with pytest.raises(BlockError) as raised, concerning("module"):
            raise BlockError(f"use {option('gate', 'residual')}", option=stated)
        assert raised.value.option == expected
    with pytest.raises(BlockError) as raised, concerning("module", gsx.errors.SelectorError):
        raise BlockError(f"use {option('gate', 'residual')}")
    assert raised.value.option == "gate"


def test_candidates_of_a_variant_are_blocks() -> None:
    with pytest.raises(BlockError) as raised:
        catalogue_block("simam[x]")
    assert raised.value.candidates == ("simam",)
