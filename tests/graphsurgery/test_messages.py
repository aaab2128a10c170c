"""Parts of messages."""

from __future__ import annotations

from xml.etree import ElementTree

from graphsurgery.messages import html_table


def test_a_table_in_html_has_a_cell_for_each_value_and_runs_no_text_of_a_model() -> None:
    found = ElementTree.fromstring(html_table(["name", "size"], [["<script>&", 3], ["two\nlines\x1b[2J", None]]))
    assert [each.text for each in found.iterfind("thead/tr/th")] == ["name", "size"]
    rows = [[cell.text for cell in row] for row in found.iterfind("tbody/tr")]
    assert rows == [["<script>&", "3"], ["two\\nlines\\x1b[2J", None]]
