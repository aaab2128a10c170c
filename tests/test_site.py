"""The site: it builds without a warning, has every page, and asks no other host for anything."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import graphsurgery
from graphsurgery import torch as live
from graphsurgery.cards.listing import in_order_of_demand, variants
from tests.pages import ROOT

pytest.importorskip("mkdocs")
pytest.importorskip("material")
FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""element -> the attribute that names what a browser fetches to show it"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a page or a heading that a link misses is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Fetched(HTMLParser):
    """Collects what a page makes a browser fetch."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in FETCHED and values.get("rel") != "canonical" and (address := values.get(FETCHED[tag])):
            self.found.append(address)


def test_no_other_host_is_asked(site: Path) -> None:
    for page in site.rglob("*.html"):
        for address in Fetched(page).found:
            assert not re.match(r"(?:\w+:)?//", address), f"{page.name}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_what_is_fetched_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        base = site if page.name == "404.html" else page.parent
        for address in Fetched(page).found:
            path = unquote(address.partition("?")[0].partition("#")[0])
            assert address.startswith("data:") or (base / path.lstrip("/")).exists(), f"{page.name}: {address}"


def test_every_page_is_in_the_navigation(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    navigation = start.partition('data-md-type="navigation"')[2].partition('data-md-type="toc"')[0]
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html", "index.html"}
    assert {page for page in pages if f'href="{page}"' not in navigation} == set()


def test_every_block_has_its_formula_and_its_drawings(site: Path) -> None:
    for kind in in_order_of_demand():
        page = (site / "blocks" / f"{kind.name}.html").read_text(encoding="utf-8")
        formula, *_ = kind.formula.split("; ")
        assert formula in html.unescape(page)
        assert len(re.findall(r'<img [^>]*class="drawing"', page)) == len(variants(kind))


def test_the_options_of_every_command_are_there(site: Path) -> None:
    page = html.unescape((site / "options.html").read_text(encoding="utf-8"))
    folder = ROOT / "graphsurgery" / "cli"
    for name in ("insert", "sweep", "verify", "tensorrt check", "tensorrt build"):
        assert (folder / f"{name.replace(' ', '_')}.py").exists()
        assert f"Usage: graphsurgery {name} [OPTIONS]" in page
    assert page.count("Usage: ") == page.count("<h2 id=")


def test_the_reference_has_every_public_name(site: Path) -> None:
    page = (site / "reference.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="(graphsurgery\.[\w.]+)"', page))
    public = {name for name in graphsurgery.__all__ if not name.startswith("__")} - {"errors", "Variable"}
    assert {f"graphsurgery.{name}" for name in public} <= anchors
    assert {f"graphsurgery.torch.{name}" for name in live.__all__} <= anchors
