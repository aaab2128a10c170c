"""Every command and every program that the pages show is run, in the order of the page, and prints what they show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, Fence, Session, fences, prose, shows, steps

ALONE = {"add-a-block.md", "CONTRIBUTING.md", "sweep_cluster.md"}
"""pages that tell their reader to write files; tests of their own follow them"""
RUN = [page for page in PAGES if page.name not in ALONE and {"console", "python"} & {f.language for f in fences(page)}]
LONG = {"compare-blocks.md": "it measures whole sweeps", "quantised.md": "it quantises two models"}
CASES = [
    pytest.param(page, id="-".join(page.relative_to(ROOT).parts), marks=[pytest.mark.long] * (page.name in LONG))
    for page in RUN
]
COMMAND = re.compile(r"^ *(?:\$ )?(?:graphsurgery|pip|python|trtexec|yolo|jupyter) \S", re.MULTILINE)


@pytest.mark.parametrize("inside", [True, pytest.param(False, marks=pytest.mark.long, id="as-typed")])
@pytest.mark.parametrize("page", CASES)
def test_a_page_does_what_it_says(
    page: Path, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    session = Session(tmp_path / "here", monkeypatch, capfd, inside)
    for fence in fences(page):
        session.follow(fence)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ALONE], ids=lambda page: page.name)
def test_what_is_not_run_says_why(page: Path) -> None:
    """A command stands in a fence that is run, or in one of another kind in front of which the reason stands."""
    assert COMMAND.findall(prose(page)) == [], "commands stand in fences"
    for fence in fences(page):
        assert (fence.language in ("bash", "py")) == (fence.reason is not None), fence.text
        assert fence.language in ("console", "bash") or not COMMAND.search(fence.text), fence.text


def test_commands_and_what_they_print_are_told_apart() -> None:
    first, second, third = steps("$ one\n$ two --option\na line\n\n$ three\ngraphsurgery: error: no\n")
    assert (first.command, first.shown, first.fails) == ("one", (), False)
    assert (second.command, second.shown, second.fails) == ("two --option", ("a line", ""), False)
    assert (third.command, third.fails) == ("three", True)
    assert [step.fails for step in steps("$ one\n$ echo $?\n1\n")] == [True, False]
    assert [step.fails for step in steps("$ one\n$ echo $?\n0\n")] == [False, False]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb", "a\nb\n", True),
        ("a", "a\nb\n", False),
        ("a\n...", "a\nb\nc\n", True),
        ("...\nc", "a\nb\nc\n", True),
        ("...\nb", "a\nb\nc\n", False),
        ("max error 1e-06, 0.1 of it", "max error 3e-07, 0.02 of it\n", True),
        ("max error 1e-06, 0.1 of it", "max error 3e-07, 0.02 of that\n", False),
    ],
)
def test_what_is_printed_is_compared(shown: str, printed: str, same: bool) -> None:
    (step,) = steps(f"$ command\n{shown}\n")
    assert shows(step, printed) is same


def test_a_command_that_fails_unannounced_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    session = Session(tmp_path / "here", monkeypatch, capfd, inside=True)
    with pytest.raises(AssertionError, match="no module of the model"):
        session.follow(Fence("console", "$ graphsurgery insert detector.onnx -m se -a /model.99 -o out.onnx\n", None))
    with pytest.raises(AssertionError, match="false"):
        session.follow(Fence("console", "$ false\n", None))
