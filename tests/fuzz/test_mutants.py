"""Mutants of models, one command each: refused in a sentence or edited rightly; never a trace, a minute, gigabytes.

CI runs the first thousand, `make test-all` all twenty thousand.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import worker
from tests.fuzz.cases import IN_CI

ROOT = Path(__file__).parents[2]
AT_ONCE, ALL = 500, 20_000

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit of memory needs Linux")


@pytest.mark.parametrize(
    "first", [pytest.param(n, marks=[pytest.mark.long] if n >= IN_CI else []) for n in range(0, ALL, AT_ONCE)]
)
def test_mutants(first: int, tmp_path: Path) -> None:
    found, last = list[str](), first + AT_ONCE
    while first < last:
        command = [sys.executable, "-m", "tests.fuzz.worker", str(first), str(last), str(tmp_path)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        lines = ran.stdout.splitlines()
        found += [line for line in lines if line.startswith("{")]
        if ran.returncode == 0:
            break
        assert lines, ran.stderr
        step, number = lines[-1].split()[:2]
        if step != worker.CHECK_INPUT:
            found.append(f"case {number}: the process ended with {ran.returncode} in step {step}: {ran.stderr[-2000:]}")
        first = int(number) + 1
    assert not found, f"files of these cases lie in {tmp_path}; for one again: {worker.__doc__}" + "\n".join(found)
