"""What a message proposes would be accepted: every better place that advice names, every candidate of every error."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain

import numpy as np
import pytest
from onnx import numpy_helper

import graphsurgery as gsx
from graphsurgery.errors import GraphSurgeryError, RequestError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.outline.outline import Outline
from graphsurgery.selection.sites import SiteFinder
from tests import models
from tests.exports import export
from tests.models import node, value, weight
from tests.recognition.test_recovery import MUST

EXPORTS = [(name, "simplified") for name in MUST] + [
    ("yolov8n", "qdq"),
    ("yolo11n", "dynamo"),
    ("resnet18", "simplified"),
]


@cache
def finder(name: str, variant: str) -> SiteFinder:
    return SiteFinder(ModelFile.load(export(name, variant)))


def hints(here: SiteFinder, *, everywhere: bool) -> dict[str, str]:
    """Selector -> a sentence that names it, of all places that are not advisable: of blocks, or of all tensors."""
    rows = [row.objection for row in Outline(here).rows(None)]
    inner = (here.adviser.advice(tensor) for tensor in here.maps()) if everywhere else ()
    return {name: each.sentence for each in chain(rows, inner) if each is not None for name in each.instead}


def refused(here: SiteFinder, selectors: dict[str, str]) -> Iterator[str]:
    """Those after which `insert` puts no block."""
    for selector, sentence in selectors.items():
        try:
            gsx.insert(here.model, "simam", after=selector)
        except GraphSurgeryError as error:
            yield f"{selector}: {error}, from: {sentence}"


def test_better_places_are_accepted() -> None:
    here = finder("yolov8n", "simplified")
    found = hints(here, everywhere=False)
    assert len(found) > 3
    assert not list(refused(here, found))


@pytest.mark.long
@pytest.mark.parametrize("exported", EXPORTS, ids="-".join)
def test_all_better_places_are_accepted_and_advisable(exported: tuple[str, str]) -> None:
    here = finder(*exported)
    found = hints(here, everywhere=True)
    assert found
    assert not list(refused(here, found))
    for selector, sentence in found.items():
        for site in here.find([selector]):
            if "no map of the image [" not in sentence and "a block needs" not in sentence:
                assert here.adviser.advice(site.tensor) is None, (selector, sentence)


# ---------------------------------------------------------------------- errors


def misspelt(here: SiteFinder) -> list[str]:
    """Selectors that name nothing, too much, or what is no place, made of what the model has."""
    paths = [module.display for module in here.tree.modules.values()]
    types = here.blocks.types
    return [
        *(f"{path}x" for path in paths),
        *(path.lstrip("/").partition("/")[2] for path in paths if "/" in path.lstrip("/")),
        *(f"tensor:{name}_" for name in here.index.outputs),
        *(f"output:{name}_" for name in here.index.outputs),
        *(f"output:{name}" for name in here.index.outputs),
        *(f"node:{node.name}_" for node in here.index.nodes[::7] if node.name),
        *(f"{kind}[999]" for kind in types),
        *(kind.upper() for kind in types),
        *(f"{kind}[0].nothing" for kind in types),
        *(f"op:{op}[9999]" for op in {node.op_type: None for node in here.index.nodes}),
        *("op:Convv", "role:p9", "role:neck", "role:head", "Backbone", "P3", "neck", "Detect", "Detect[0]", "Concat"),
    ]


def refusal(here: SiteFinder, selector: str, position: str) -> RequestError | None:
    try:
        here.find([selector], position=position)
    except RequestError as error:
        return error
    return None


def not_accepted(here: SiteFinder, selectors: list[str], position: str) -> Iterator[str]:
    """The candidates of errors that are refused in their turn, and errors that do not mark what is wrong."""
    for selector in filter(None, selectors):
        error = refusal(here, selector, position)
        if error is None:
            continue
        if "^" not in str(error).splitlines()[-1]:
            yield f"not marked: {error}"
        meant = "after" if "; name one with after=" in str(error) else position
        for candidate in error.candidates:
            if other := refusal(here, candidate, meant):
                yield f"{selector}: {error}\n{candidate}: {other}"


@pytest.mark.parametrize("position", ["after", "before"])
@pytest.mark.parametrize("style", ["torchscript", "none"])
def test_candidates_are_accepted(style: str, position: str) -> None:
    here = SiteFinder(ModelFile.load(models.detector(style=style)))
    assert not list(not_accepted(here, misspelt(here), position))


@pytest.mark.long
@pytest.mark.parametrize("position", ["after", "before"])
@pytest.mark.parametrize("exported", EXPORTS, ids="-".join)
def test_all_candidates_are_accepted(exported: tuple[str, str], position: str) -> None:
    here = finder(*exported)
    assert not list(not_accepted(here, misspelt(here), position))


def test_candidates_for_consumers_name_consumers() -> None:
    here = SiteFinder(ModelFile.load(models.detector()))
    with pytest.raises(RequestError) as error:
        here.find(["/model.1"], consumers=["/model.4"])
    assert error.value.candidates
    assert all(here.find(["/model.1"], consumers=[candidate]) for candidate in error.value.candidates)


def test_a_map_with_the_channels_last_is_not_proposed() -> None:
    """Its sizes look like those of a map, and what it is made of is one."""
    conv = {"pads": [1, 1, 1, 1], "strides": [2, 2]}
    made = models.model(
        [
            node("Conv", ["x", "stem"], ["a"], "a", **conv),
            node("Relu", ["a"], ["b"], "b"),
            node("Conv", ["b", "w"], ["head"], "head"),
            node("Transpose", ["head"], ["nhwc"], "nhwc", perm=[0, 2, 3, 1]),
            node("Reshape", ["nhwc", "flat"], ["y"], "y"),
        ],
        [value("x", (1, 3, 16, 16))],
        [value("y", (1, 64, 5))],
        [
            weight("stem", (8, 3, 3, 3)),
            weight("w", (5, 8, 1, 1)),
            numpy_helper.from_array(np.array([1, 64, 5]), "flat"),
        ],
    )
    with pytest.raises(RequestError) as error:
        SiteFinder(ModelFile.load(made)).find(["tensor:y"])
    assert "tensor:nhwc" not in str(error.value)
    assert error.value.candidates == ("tensor:head",)
