"""The usual commands and calls where functions of POSIX and Linux are missing: stand-ins for Windows and macOS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.smoke


@pytest.mark.skipif(sys.platform != "linux", reason="stand-ins are made of Linux")
@pytest.mark.parametrize("system", ["windows", pytest.param("macos", marks=pytest.mark.long)])
def test_everything_usual_is_done(system: str, tmp_path: Path) -> None:
    script = ROOT / "tests" / "on_other_systems.py"
    done = subprocess.run(
        [sys.executable, "-m", "tests.other_systems", system, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"left": []}


def test_the_stand_in_keeps_open_files(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from tests import other_systems\n"
        "other_systems.windows()\n"
        "assert not hasattr(os, 'pread')\n"
        "open('a', 'w').close()\n"
        "open('b', 'w').close()\n"
        "for operation in (lambda: os.replace('b', 'a'), lambda: os.rename('a', 'c'), lambda: os.unlink('a')):\n"
        "    with open('a'):\n"
        "        try:\n"
        "            operation()\n"
        "        except PermissionError:\n"
        "            continue\n"
        "    raise SystemExit('it was done')\n"
        "os.replace('b', 'a')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
