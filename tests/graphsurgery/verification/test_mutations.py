"""Wrong versions of every block fail, but for those that are the same function in float64, or nearly.

Those that pass stand in survivors.txt, each with the reason. CI takes a few of some variants; `make test-all` takes 25
of each and 60 at its ends, and prints the counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import graphsurgery as gsx
from graphsurgery.errors import BlockError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.modelfile.record import Insertion
from graphsurgery.verification import verify
from graphsurgery.verification.connection import Connection, Connections
from graphsurgery.verification.metrics import Metrics
from graphsurgery.verification.runners import Runner
from tests.graphsurgery.verification.equivalence import Right
from tests.graphsurgery.verification.mutations import INSIDE, Mutant, mutants
from tests.test_every_site import catalogue

EACH, ENDS = 25, 60
"""wrong ones inside of each variant, and at its ends, at most"""
LEAST = 1500
CHANNELS = (32, 64)
"""The second where a block cannot stand on a map of the first; with these no block is one of its constants only."""
SETTINGS: dict[str, dict[str, object]] = {
    "shuffle": {"groups": 8},
    "cga[block]": {"heads": 2},
    "cga[unit]": {"heads": 2},
}
"""With fewer heads than by default there are fewer layers to try."""
IN_CI = ("ese", "gc[official-mul]", "se", "simam", "coordatt[official]", "lct")
SURVIVORS = Path(__file__).with_name("survivors.txt")
WITHIN = "within the tolerance"
"""The one reason that is not being the same function: it is off by less than a comparison in float32 can tell."""


class Failed(Exception):
    """The first thing that fails: verify would go on, and end with a report of failure."""


@dataclass
class Known:
    """What is known of the wrong versions of one variant."""

    inside: int
    ends: int
    survivors: dict[str, str] = field(default_factory=dict)
    """"kind: mistake" -> reason"""


@cache
def known() -> dict[str, Known]:
    """Lines of ``variant: N wrong inside, M at its ends``, each followed by those that pass: ``reason | mistake``."""
    found: dict[str, Known] = {}
    spelled = ""
    for line in SURVIVORS.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            reason, _, what = line.strip().partition(" | ")
            found[spelled].survivors[what] = reason
        elif line and not line.startswith("#"):
            spelled, _, counts = line.partition(": ")
            inside, ends = (int(word) for word in counts.split() if word.isdigit())
            found[spelled] = Known(inside, ends)
    return found


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


@pytest.fixture
def until_it_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    record, check = Runner.record, Connections.check

    def checked(runner: Runner, case: str, metrics: Metrics) -> None:
        if not metrics.passed:
            raise Failed
        record(runner, case, metrics)

    def connected(connections: Connections, insertion: Insertion) -> Connection:
        found = check(connections, insertion)
        if not found.passed:
            raise Failed
        return found

    monkeypatch.setattr(Runner, "record", checked)
    monkeypatch.setattr(Connections, "check", connected)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def passes(mutant: Mutant) -> bool:
    try:
        return verify(ModelFile.load(mutant.model), providers=["cpu"], seeds=1).passed
    except Failed:
        return False


def survivors(right: Right, wrong: Iterable[Mutant]) -> dict[str, str]:
    """ "kind: mistake" -> the same function, within the tolerance, or by how much a comparison should tell it."""
    found = {}
    for mutant in filter(passes, wrong):
        apart = right.difference(mutant.model)
        size = "the same function" if apart.equal else WITHIN if apart.visible < 1 else f"differs by {apart}"
        found[f"{mutant.kind}: {mutant.what}"] = size
    return found


def expected(spelled: str, found: Iterable[str] | None = None) -> dict[str, str]:
    """What stands in the file, as ``survivors`` says it; of these mistakes only, if any are given."""
    reasons = known()[spelled].survivors
    kept = (WITHIN, "differs")
    short = {what: why if why.startswith(kept) else "the same function" for what, why in reasons.items()}
    return short if found is None else {what: short[what] for what in found if what in short}


@pytest.mark.parametrize("spelled", IN_CI)
@pytest.mark.usefixtures("until_it_fails")
def test_a_few_of_some_variants(spelled: str) -> None:
    model, record = inserted(spelled)
    wrong = [*mutants(model, record, 5), *mutants(model, record, 4, ["end"])]
    names = [f"{mutant.kind}: {mutant.what}" for mutant in wrong]
    assert survivors(Right(model, record), wrong) == expected(spelled, names)


@pytest.mark.parametrize("number", range(6))
def test_the_whole_report_fails(number: int) -> None:
    """Not only what it stumbles over first."""
    model, record = inserted("se")
    wrong = [*mutants(model, record, 3, ["operator"]), *mutants(model, record, 3, ["end"])][number]
    report = verify(ModelFile.load(wrong.model), providers=["cpu"], seeds=1)
    assert not report.passed
    assert not report.insertions[0].passed


@pytest.mark.long
@pytest.mark.parametrize("spelled", catalogue())
@pytest.mark.usefixtures("until_it_fails")
def test_many_of_each_variant(spelled: str) -> None:
    model, record = inserted(spelled)
    inside, ends = (list(mutants(model, record, *args)) for args in ((EACH, INSIDE), (ENDS, ["end"])))
    counts = Counter(mutant.kind for mutant in (*inside, *ends))
    found = survivors(Right(model, record), inside)
    print(f"{spelled}: {dict(counts)}, of which {len(found)} pass: {dict(Counter(found.values()))}")
    assert found == expected(spelled)
    assert [mutant.what for mutant in ends if passes(mutant)] == []
    assert (len(inside), len(ends)) == (known()[spelled].inside, known()[spelled].ends)


def test_there_are_enough() -> None:
    assert list(known()) == list(catalogue())
    assert sum(each.inside for each in known().values()) >= LEAST
    assert all(each.ends > 0 for each in known().values())
