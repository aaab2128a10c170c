"""compare.py sees what differs, and the list of requests covers its axes in pairs."""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.compatibility import changes
from tests.compatibility.compare import REFUSED, report
from tests.compatibility.insert_requests import InsertRequest, pairwise

ASKED = [
    InsertRequest("example", {"module": "se", "precision": "safe"}),
    InsertRequest("example", {"module": "se", "precision": "fp16"}),
    InsertRequest("yolov8n half", {"module": "nam", "precision": "site"}),
]
BEFORE = {ASKED[0].key: "a", ASKED[1].key: "b", ASKED[2].key: f"{REFUSED}BlockError"}


def test_equal_results_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ASKED, BEFORE, dict(BEFORE)) == 0
    told = capsys.readouterr().out
    assert "differs" not in told
    assert "2 of 2 models equal to the byte; 1 requests refused before, 1 of them in the same way" in told


@pytest.mark.parametrize(("place", "marked"), [(0, False), (1, True), (2, True)])
def test_a_difference_is_listed(place: int, marked: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ASKED, BEFORE, {**BEFORE, ASKED[place].key: "other"}) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("differs: ")]
    assert ASKED[place].key in line
    assert ("[computed in half precision]" in line) == marked


def test_a_difference_that_is_meant_is_none_to_fail_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(changes.CHANGED, 'example: *"precision": "fp16"*', "one mechanism for half precision")
    assert report(ASKED, BEFORE, {**BEFORE, ASKED[1].key: "other"}) == 0
    assert "[one mechanism for half precision]" in capsys.readouterr().out
    assert report(ASKED, BEFORE, {**BEFORE, ASKED[0].key: "other"}) == 1


def test_rows_cover_every_pair_that_is_possible() -> None:
    axes = {"variant": list("abcdefg"), "model": list("xyz"), "place": list("12"), "target": list("+-")}

    def possible(row: dict[str, str]) -> bool:
        return not (row.get("variant") == "a" and row.get("model") in ("x", "y"))

    rows = list(pairwise(axes, possible))
    assert all(possible(row) for row in rows)
    for one, other in combinations(axes, 2):
        wanted = {(a, b) for a in axes[one] for b in axes[other] if possible({one: a, other: b})}
        assert {(row[one], row[other]) for row in rows} == wanted
    assert len(rows) <= 24
