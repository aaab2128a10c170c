"""scripts/run_all_tests.py: parts, the log, and going on after an interruption."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SELECTION = "tests/graphsurgery/test_request.py"


def script(folder: Path, *arguments: str, code: int = 0) -> list[str]:
    """Run it over a few tests in two parts; what it says of each part."""
    command = [sys.executable, "scripts/run_all_tests.py", "--workers", "0", "--folder", str(folder), *arguments]
    ended = subprocess.run([*command, SELECTION], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return [line.strip() for line in ended.stdout.splitlines()[-2:]]


def test_a_run_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    first, second = script(tmp_path, "--part", "1/2")
    assert "passed, 0 skipped" in first
    assert second.startswith("2/2  not run at ")
    assert second.endswith("before: never")
    again, now = script(tmp_path, "--parts", "2")
    assert again == first, "what has passed is not run again"
    assert "passed, 0 skipped" in now
    assert script(tmp_path, "--parts", "2", "--status") == [again, now]
    runs = json.loads((tmp_path / "log.json").read_text())
    assert [run["part"] for run in runs] == ["1/2", "2/2"]
    assert f"| 2/2 | {now.removeprefix('2/2  ')} |" in (tmp_path / "log.md").read_text().splitlines()
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "", "--collect-only", "-q", SELECTION],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert sum(run["passed"] for run in runs) == sum("::" in line for line in collected.stdout.splitlines())


def test_what_failed_or_was_run_on_other_code_is_run_again(tmp_path: Path) -> None:
    script(tmp_path, "--part", "1/2")
    (run,) = json.loads((tmp_path / "log.json").read_text())
    of_other_code = run | {"state": "0123456789ab"}
    (tmp_path / "log.json").write_text(json.dumps([of_other_code]))
    first, _ = script(tmp_path, "--parts", "2", "--status")
    assert first.startswith(f"1/2  not run at {run['state']}; before: {run['passed']} passed")
    (tmp_path / "log.json").write_text(json.dumps([run | {"exit_code": 1, "failed": 2}]))
    assert "2 failed" in script(tmp_path, "--parts", "2", "--status")[0]
    script(tmp_path, "--parts", "2")
    assert [run["part"] for run in json.loads((tmp_path / "log.json").read_text())] == ["1/2", "1/2", "2/2"]


@pytest.mark.parametrize("part", ["0/2", "3/2"])
def test_parts_that_do_not_exist(tmp_path: Path, part: str) -> None:
    script(tmp_path, "--part", part, code=2)
