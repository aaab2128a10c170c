"""The page of a report as text: everything is in it, names stay text, nothing is loaded, and it is deterministic."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.sweep.page import marked_picture, page
from graphsurgery.sweep.page import plots as plots_file
from graphsurgery.sweep.page.plots import Point, front
from graphsurgery.sweep.page.text import milliseconds, share, size
from tests.graphsurgery.sweep.page.reports import HOSTILE, report

_DETECTOR = Path(__file__).parents[4] / "examples/01_first_insertion/detector.onnx"
_VOID = {"meta", "link", "input", "br"}


class _Page(HTMLParser):
    """The ids and the fragments that are linked to; elements that are closed in another order are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fragments: set[str] = set()
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name == "href" and value and value.startswith("#"):
                self.fragments.add(value[1:])
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_cell_has_a_row_and_its_command_and_every_link_leads_somewhere() -> None:
    found = _Page(page(report(8, 8)))
    assert not found.open
    assert {f"{kind}-{number}" for kind in ("cell", "command") for number in range(64)} <= set(found.ids)
    assert found.fragments <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))


def test_a_name_with_html_in_it_stays_text() -> None:
    text = page(report())
    assert HOSTILE not in text
    assert _Page(text).scripts == 1


def test_the_page_names_no_address_but_namespaces() -> None:
    addresses = set(re.findall(r"https?://[^\"' <]+", page(report())))
    assert addresses <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}


def test_the_same_report_gives_the_same_page() -> None:
    assert page(report()) == page(report())


def test_a_report_of_which_nothing_is_measured_yet() -> None:
    partial = report(complete=False)
    failed = partial["cells"][-1]
    partial["cells"] = [failed | {"state": "pending", "reason": "", "module": f"b{n}", "fits": None} for n in range(3)]
    text = page(partial)
    assert "0 of 3 cells are done; the sweep is not finished" in text
    assert "Too little has been timed for a plot." in text


def test_without_matplotlib_the_page_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(plots_file, "import_module", missing)
    text = page(report())
    assert "the plots need the extra report: pip install &quot;graphsurgery[report]&quot;" in text
    assert 'id="cell-0"' in text


def test_the_picture_is_shown_where_there_is_one() -> None:
    assert "<svg>the detector</svg>" in page(report(), "<svg>the detector</svg>")
    assert 'aria-label="The detector"' not in page(report())


def test_the_places_are_marked_in_the_picture_by_their_numbers() -> None:
    model = ModelFile.load(_DETECTOR)
    at_8, at_21 = ({"tensor": f"/model.{n}/cv2/act/Mul_output_0"} for n in (8, 21))
    columns = [{"places": [at_8]}, {"places": []}, {"places": [at_8, at_21]}]
    plain, marked = (marked_picture(model, {"columns": each}) for each in ([], columns))
    added = [line for line in marked.splitlines() if line not in plain.splitlines()]
    assert [re.sub("<[^>]*>", "", line) for line in added if line.startswith("<text")] == ["1, 3", "3"]


def test_reasons_stand_where_figures_are_missing() -> None:
    text = page(report())
    assert "failed: the map has 3 channels, and block2 needs 4" in text
    assert "it has no such start" in text
    assert "not 8.6: an operator" in text


def test_the_front_holds_what_none_beats_in_both() -> None:
    prices = [(0, 2.0), (0, 3.0), (5, 1.0), (6, 1.5), (9, -1.0)]
    points = [Point(n, "", price, ms, ms, ms, True) for n, (price, ms) in enumerate(prices)]
    assert [point.number for point in front(points)] == [0, 2, 4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (share(0.0), "0 %"),
        (share(3e-12), "3.0e-12"),
        (share(0.0123), "1.23 %"),
        (share(None), ""),
        (size(0), "0 B"),
        (size(-2048), "-2.0 KiB"),
        (size(5 * 2**40), "5.0 TiB"),
        (milliseconds(-0.00012345), "-0.000123 ms"),
        (milliseconds(123.4), "+123 ms"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert text == expected


def test_large_prices_are_short_on_the_axis() -> None:
    (_, parameters), *_ = plots_file.plots(report())
    marks = re.findall(r"<text[^>]*>([^<]*)</text>", parameters)
    assert {"1M", "100k"} & set(marks)
    assert not any("e+" in mark for mark in marks)
