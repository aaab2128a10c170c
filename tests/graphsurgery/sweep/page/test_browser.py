"""The page in headless Chromium: sorting, filtering, the keyboard, narrow and dark screens, paper, and no requests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphsurgery.sweep.page import page
from tests.graphsurgery.sweep.page.reports import report

_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(report(8, 8), "<svg width='1500' height='40'></svg>"), encoding="utf-8")
    return path


@pytest.fixture
def view(browser: Any, file: Path) -> Iterator[Any]:
    """The page in a window, which must stay without requests, errors and messages."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(5000)
    tab, seen = context.new_page(), []
    tab.on("console", lambda message: seen.append(message.text))
    tab.on("pageerror", lambda error: seen.append(str(error)))
    tab.on("request", lambda request: seen.append(request.url))
    tab.goto(file.as_uri())
    yield tab
    assert [each for each in seen if not each.startswith("data:")] == [file.as_uri()]
    context.close()


def _keys(view: Any, title: str) -> list[str | None]:
    """The sorting keys of a column in the order of the rows."""
    script = """title => {
        const headers = [...document.querySelectorAll('.cells thead th')];
        const column = headers.findIndex(each => each.textContent === title);
        return [...document.querySelectorAll('.cells tbody tr')].map(row => row.cells[column].dataset.key ?? null);
    }"""
    found: list[str | None] = view.evaluate(script, title)
    return found


def _shown(view: Any) -> int:
    return int(view.locator(".cells tbody tr:visible").count())


def _header(view: Any, title: str) -> Any:
    return view.locator(".cells thead th", has=view.get_by_role("button", name=title, exact=True))


@pytest.mark.parametrize("title", ["Parameters", "Latency (cpu)", "Drift (default)"])
def test_numbers_are_sorted_both_ways_and_the_unknown_come_last(view: Any, title: str) -> None:
    button = view.get_by_role("button", name=title, exact=True)
    for direction in ("ascending", "descending"):
        button.click()
        assert _header(view, title).get_attribute("aria-sort") == direction
        keys = _keys(view, title)
        known = [float(key) for key in keys if key is not None]
        assert known == sorted(known, reverse=direction == "descending")
        assert None not in keys[: len(known)]
        assert 0 < len(known) < len(keys) == 64
    assert view.locator("[aria-sort]").count() == 1


def test_words_are_sorted(view: Any) -> None:
    view.get_by_role("button", name="Block", exact=True).click()
    view.get_by_role("button", name="Block", exact=True).click()
    keys = _keys(view, "Block")
    assert (keys[0], keys[-1]) == ("block7", "block0")


def test_the_keyboard_alone_sorts_and_filters_and_shows_where_it_is(view: Any) -> None:
    view.keyboard.press("Tab")
    assert view.evaluate("document.activeElement.dataset.filter") == "text"
    view.keyboard.type("block3")
    assert _shown(view) == 8
    for _ in range(20):
        view.keyboard.press("Tab")
        if view.evaluate("document.activeElement.textContent") == "Place":
            break
    assert view.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    view.keyboard.press("Enter")
    assert _header(view, "Place").get_attribute("aria-sort") == "ascending"
    view.keyboard.press("Space")
    assert _header(view, "Place").get_attribute("aria-sort") == "descending"


def test_filters_are_combined_counted_and_reset(view: Any) -> None:
    view.locator("form").get_by_label("Block").select_option("block2")
    assert _shown(view) == 8
    view.locator("form").get_by_label("Place").select_option("role:p3")
    assert _shown(view) == 1
    assert view.locator("output").text_content() == "1 of 64 cells"
    view.get_by_role("button", name="Show all").click()
    view.wait_for_function("document.querySelector('output').textContent === '64 of 64 cells'")
    view.locator("form").get_by_label("fits the budgets").check()
    assert _shown(view) == 32
    view.locator("form").get_by_label("State").select_option("failed")
    assert _shown(view) == 0


def test_a_point_of_a_plot_leads_to_its_row_even_if_it_was_filtered_out(view: Any) -> None:
    view.locator("form").get_by_label("State").select_option("failed")
    point = view.locator("figure svg a[href='#cell-0']").first
    assert point.get_attribute("aria-label").startswith("block0 at role:p3: +1.5")
    point.focus()
    view.keyboard.press("Enter")
    view.wait_for_selector("#cell-0:target", state="visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_only_tables_and_pictures_scroll_sideways_and_text_has_contrast(view: Any, width: int, scheme: str) -> None:
    view.set_viewport_size({"width": width, "height": 900})
    view.emulate_media(color_scheme=scheme)
    assert view.evaluate("document.documentElement.scrollWidth") == width
    script = "element => [getComputedStyle(element).color, getComputedStyle(element).backgroundColor]"
    ink, paper = (_luminance(colour) for colour in view.eval_on_selector("body", script))
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7
    assert (paper < 0.1) is (scheme == "dark")


def test_paper_shows_every_row_and_no_controls(view: Any) -> None:
    view.emulate_media(media="print", color_scheme="dark")
    assert _shown(view) == 64
    assert not view.locator(".filters").is_visible()
    table, body = (view.locator(name).bounding_box() for name in (".cells", "body"))
    view.set_viewport_size({"width": 1047, "height": 700})  # A4 landscape without its margins
    assert view.eval_on_selector(".cells", "table => table.scrollWidth") <= 1047
    assert table["height"] < body["height"]
    assert len(view.pdf(prefer_css_page_size=True)) > 10_000


def test_without_javascript_the_table_is_there_and_dead_controls_are_not(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(file.as_uri())
    assert tab.locator(".cells tbody tr:visible").count() == 64
    assert not tab.locator("form").is_visible()
    assert tab.locator(".cells thead button").count() == 0
    context.close()


def _luminance(colour: str) -> float:
    """The relative luminance of WCAG of "rgb(r, g, b)"."""
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
