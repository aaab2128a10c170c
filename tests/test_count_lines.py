"""scripts/count_lines.py: what counts as a line of code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from runpy import run_path

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "count_lines.py"

SOURCE = b'''"""A docstring
of two lines."""

import os  # counts: the comment does not take the line away

# a comment


def f(x=1,
      y=2):  # two lines
    """Another."""
    text = """counts:
    it is a value"""
    return text
'''


def test_docstrings_comments_and_blank_lines_do_not_count() -> None:
    assert run_path(str(SCRIPT))["lines_of_code"](SOURCE) == 6


def test_the_sum_and_the_difference_to_a_commit() -> None:
    command = [sys.executable, str(SCRIPT)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    counts = {line.split()[-1]: int(line.split()[0].replace(",", "")) for line in lines}
    assert counts.pop("all") == sum(counts.values())
    assert {f"graphsurgery/{folder}" for folder in ("modelfile", "cli", "tensorrt")} < set(counts)
    against = subprocess.run([*command, "--against", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in against.splitlines()] == [line.split()[0] for line in lines]


def test_a_commit_that_is_none() -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--against", "nowhere"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("git cannot show graphsurgery and patterns at 'nowhere': ")
