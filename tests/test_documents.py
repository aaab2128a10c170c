"""The documents: how wide their lines are, and that what they name exists. What they show, tests/test_pages.py runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import graphsurgery
from tests.pages import PAGES, ROOT, prose

WIDTH = 120
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def slug(heading: str) -> str:
    """The anchor that a heading has on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@every_page
def test_lines_end_at_120_columns(page: Path) -> None:
    """Tables may be wider, and a line that is a single word."""
    lines = [line for line in prose(page).splitlines() if not line.startswith("|") and " " in line.strip()]
    assert [line for line in lines if len(line) > WIDTH] == []


def test_the_start_page_lists_every_page() -> None:
    """The navigation of the site is that list."""
    folder = ROOT / "docs"
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (folder / "index.md").read_text(encoding="utf-8")))
    assert linked == {page.name for page in folder.glob("*.md")} - {"index.md"}


@every_page
def test_links_lead_to_a_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in map(slug, headings), f"{target}#{anchor}"


@every_page
def test_public_names_are_exported(page: Path) -> None:
    named = set(re.findall(r"\bgsx\.(\w+)", page.read_text(encoding="utf-8")))
    assert named <= set(graphsurgery.__all__)


def named_paths(page: Path) -> list[str]:
    """Files and folders of the project that a page names, but for the files that it tells its reader to write."""
    folders = "graphsurgery|patterns|tests|scripts|benchmarks|docs"
    return re.findall(rf"`((?:{folders})/[\w./-]+)`(?!:\n)", prose(page))


@every_page
def test_paths_exist(page: Path) -> None:
    assert [path for path in named_paths(page) if not (ROOT / path).exists()] == []
