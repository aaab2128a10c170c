"""The documents: how wide their lines are, and that what they name exists and what they show runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import graphsurgery

ROOT = Path(__file__).parents[1]
WIDTH = 120
GENERATED = ROOT / "docs" / "blocks.md"
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("examples/*/*.md"))]
NOT_ALONE = {"add-a-block.md", "CONTRIBUTING.md", "sweep_cluster.md"}
"""Pages whose Python is files of a package, or needs a cluster; tests of their own follow them."""
FENCE = re.compile(r"^ *```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
PROGRAMS = [
    pytest.param(match["text"], id=f"{page.name}-{number}")
    for page in PAGES
    if page.name not in NOT_ALONE
    for number, match in enumerate(
        m for m in FENCE.finditer(page.read_text(encoding="utf-8")) if m["language"] == "python"
    )
]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def prose(page: Path) -> str:
    """The text without what is shown as it is printed."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def slug(heading: str) -> str:
    """The anchor that a heading has on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@every_page
def test_lines_end_at_120_columns(page: Path) -> None:
    """Tables may be wider, and a line that is a single word."""
    lines = [line for line in prose(page).splitlines() if not line.startswith("|") and " " in line.strip()]
    assert [line for line in lines if len(line) > WIDTH] == []


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the root of a checkout to a program."""
    made = tmp_path_factory.mktemp("documents")
    shutil.copytree(ROOT / "examples", made / "examples")
    return made


@pytest.mark.parametrize("program", PROGRAMS)
def test_python_runs(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(program, "document", "exec"), {"__name__": "document"})


def test_what_info_prints() -> None:
    """The one screen of docs/command-line.md."""
    (shown,) = re.findall(
        r"```text\n\$ graphsurgery (info .*?)```", (ROOT / "docs" / "command-line.md").read_text(), re.S
    )
    command, _, printed = shown.partition("\n")
    arguments = [sys.executable, "-m", "graphsurgery", *command.split()]
    assert subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True).stdout == printed
