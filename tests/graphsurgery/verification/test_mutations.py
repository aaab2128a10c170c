"""Wrong versions of every block fail, but for those that compute the same function all the same.

CI takes one of each variant, a kind of mistake each in turn; `make test-all` takes 25 of each and prints the counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.errors import BlockError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.record import Insertion
from graphsurgery.verification import InsertionReport, verify
from graphsurgery.verification.metrics import Metrics
from graphsurgery.verification.runners import Runner
from tests.graphsurgery.verification.equivalence import Right
from tests.graphsurgery.verification.mutations import Mutant, mutants
from tests.test_every_site import catalogue

EACH = 25
CHANNELS = (32, 64)
"""The second where a block cannot stand on a map of the first; with these no block is one of its constants only."""
SETTINGS = {"shuffle": {"groups": 8}}
EQUAL = 1e-12
"""A function that is written in two ways differs by no more in float64."""

SAME = {
    r"left to its default": "what is left out is the default, or follows from the weight",
    r"Reduce\w+: axes = \[3, 2\]": "the order of the axes of a reduction does not matter",
    r"exchanged|another tensor of that shape": "the operator commutes, or both tensors hold the same",
    r"constant \w+ (negated|zero|times|rolled|reversed)": "it is zero, or the same in each of its elements",
    r"constant \w+ \[\d\] [+-]1": "a length of -1 that follows from the others, or the other way round",
    r"BatchNormalization: epsilon": "its variances are 1: at most half the tolerance, on any input",
    r"left out|->|: axis|: keepdims|: axes|: pads": "nothing of this map, or of this width, depends on it",
}
"""What survives (the mistake, as an expression), and why it is the same function; each is shown to be, in float64."""
SMALL = {"BatchNormalization: epsilon": 5e-6}
"""What differs by less than float32 is compared to, and by how much at most, of the largest value."""


class Failed(Exception):
    """The first comparison that fails: verify would go on, and end with a report of failure."""


def detector(channels: int) -> onnx.ModelProto:
    """images [1, 3, 8, 8] -> Conv, Relu (the site) -> Sigmoid, and Neg; their sum."""
    weight = 0.3 * np.random.default_rng(0).standard_normal((channels, 3, 3, 3))
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["before"], name="/model.0/Conv", pads=[1] * 4),
        helper.make_node("Relu", ["before"], ["site"], name="/model.0/Relu"),
        helper.make_node("Sigmoid", ["site"], ["one"], name="/model.1/Sigmoid"),
        helper.make_node("Neg", ["site"], ["other"], name="/model.2/Neg"),
        helper.make_node("Add", ["one", "other"], ["output"], name="/model.3/Add"),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, count, 8, 8])
        for name, count in (("images", 3), ("output", channels))
    ]
    weights = [numpy_helper.from_array(weight.astype(np.float32), "weight")]
    graph = helper.make_graph(nodes, "detector", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def inserted(spelled: str) -> tuple[onnx.ModelProto, Insertion]:
    for channels in CHANNELS:
        try:
            model = gsx.insert(detector(channels), spelled, after="tensor:site", settings=SETTINGS.get(spelled, {}))
        except BlockError:
            continue
        return model.proto(), model.insertions()[0]
    raise AssertionError(f"{spelled} stands on no map of {CHANNELS} channels")


@pytest.fixture(autouse=True)
def _until_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Runner.record

    def checked(runner: Runner, case: str, metrics: Metrics) -> None:
        if not metrics.passed:
            raise Failed
        record(runner, case, metrics)

    monkeypatch.setattr(Runner, "record", checked)


def passing(mutant: Mutant) -> InsertionReport | None:
    """The report of one that passes."""
    try:
        report = verify(ModelFile.load(mutant.model), providers=["cpu"], seeds=1)
    except Failed:
        return None
    return report.insertions[0] if report.passed else None


def said(mutant: Mutant, report: InsertionReport) -> bool:
    """Whether the report says that nothing reached what the mistake is in."""
    operator = mutant.what.partition(" ")[0].rstrip(":")
    return any(piece.startswith(f"{operator}: ") for piece in report.not_exercised)


def survivors(spelled: str, numbers: Iterable[int], counts: Counter[str]) -> list[str]:
    """Those that pass and are another function, or of no known class, in words."""
    model, record = inserted(spelled)
    wrong = list(islice(mutants(model, record), max(numbers) + 1))
    found = []
    for mutant in (wrong[number] for number in numbers if number < len(wrong)):
        counts[mutant.kind] += 1
        report = passing(mutant)
        if report is None:
            continue
        if said(mutant, report):
            counts["said not to be exercised"] += 1
            continue
        counts["the same function"] += 1
        apart = difference(model, mutant.model, record)
        least = next((size for what, size in SMALL.items() if mutant.what.startswith(what)), EQUAL)
        if apart > least or not any(re.search(what, mutant.what) for what in SAME):
            found.append(f"{spelled}: {mutant.kind}: {mutant.what}: differs by {apart:.1e}")
    return found


@pytest.mark.parametrize(("number", "spelled"), list(enumerate(catalogue())), ids=catalogue())
def test_one_of_each_variant(number: int, spelled: str) -> None:
    """The first five mistakes are of the five kinds."""
    assert survivors(spelled, [number % 5], Counter()) == []


@pytest.mark.long
@pytest.mark.parametrize("spelled", catalogue())
def test_many_of_each_variant(spelled: str) -> None:
    counts: Counter[str] = Counter()
    found = survivors(spelled, range(EACH), counts)
    print(f"{spelled}: {dict(counts)}")
    assert found == []
