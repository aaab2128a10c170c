"""Every rule: what breaks it is found, what only just complies is not."""

from __future__ import annotations

import pytest

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.tensorrt import Version, check, findings
from graphsurgery.tensorrt.options import Options
from graphsurgery.tensorrt.rule import SEVERITIES
from graphsurgery.tensorrt.rules import RULES
from graphsurgery.tensorrt.support import source, table
from tests.graphsurgery.tensorrt.cases import CASES, Case
from tests.graphsurgery.tensorrt.importer_cases import IMPORTER_CASES
from tests.models import chain

ALL = (*CASES, *IMPORTER_CASES)


def rules_of(case: Case, broken: bool) -> set[str]:
    proto = case.breaks if broken else case.complies
    version = case.version if broken else case.complies_in or case.version
    plugin = case.plugin if broken else ()
    report = check(proto, version, dla=case.dla, precision=case.precision, plugin=plugin)
    return {finding.rule for finding in report.findings}


@pytest.mark.parametrize("case", ALL, ids=[f"{i}-{case.rule}" for i, case in enumerate(ALL)])
def test_what_breaks_a_rule_is_found_and_what_complies_is_not(case: Case) -> None:
    assert case.rule in rules_of(case, True)
    assert case.rule not in rules_of(case, False)


def test_a_dla_wants_a_narrow_type() -> None:
    found = {
        p: {f.rule for f in findings(ModelFile.load(chain("Relu")), dla="orin", precision=p)} for p in ("fp32", "fp16")
    }
    assert "dla-precision" in found["fp32"]
    assert "dla-precision" not in found["fp16"]


def test_every_rule_has_a_case() -> None:
    assert {rule.id for rule in RULES} == {case.rule for case in ALL} | {"dla-precision"}


def test_every_rule_is_complete() -> None:
    for rule in RULES:
        assert source(rule.source), rule.id
        assert rule.instead, rule.id
        assert rule.severity in SEVERITIES, rule.id
        assert (rule.node is None) != (rule.file is None), rule.id
        assert any(rule.holds_for(Options.of(Version(*v), dla="orin")) for v in ((8, 6), (10, 0), (10, 14), (11, 0))), (
            rule.id
        )


# Restrictions in words for which there is nothing in the file to look at.
UNCHECKED = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",  # the seed is ignored
    "RotaryEmbedding",  # position_ids are INT64 by ONNX itself
}  # fmt: skip


def test_every_restriction_of_the_table_has_a_rule() -> None:
    """A row with words in it is about an operator that some rule names."""
    ruled = {name for rule in RULES for name in rule.operators or ()}
    restricted = {
        name
        for name, rows in table()["operators"].items()
        if any(row and row.get("restrictions") for row in rows.values())
    }
    assert restricted - ruled - UNCHECKED == set()


def test_a_finding_says_where_it_is() -> None:
    (found,) = findings(ModelFile.load(chain("Relu", "Det", "Relu")), "11")
    assert (found.node, found.operator, found.position, found.within, found.insertion) == ("n1", "Det", 1, None, None)
    assert (found.rule, found.severity) == ("operator", "error")
    assert found.source.startswith("onnx/onnx-tensorrt docs/operators.md")
