"""Commands that write a model load numpy without threads, and leave the environment as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAID = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
MODEL = Path(__file__).parents[3] / "examples" / "01_first_insertion" / "detector.onnx"


@pytest.mark.parametrize("said", [{}, {"OMP_NUM_THREADS": "2"}, {"OPENBLAS_NUM_THREADS": "2"}])
def test_one_thread_unless_the_user_says_otherwise(said: dict[str, str], tmp_path: Path) -> None:
    """In a process of its own, because it is decided once. A system without /proc does not tell how many there are."""
    code = (
        "import os, sys\n"
        "from graphsurgery.cli.main import main\n"
        "assert 'numpy' not in sys.modules\n"
        "before = dict(os.environ)\n"
        "words = ['--module', 'simam', '--after', '/model.8', '--no-verify', '-q', '-o']\n"
        "assert main(['insert', sys.argv[1], *words, sys.argv[2]]) == 0\n"
        "assert dict(os.environ) == before and 'numpy' in sys.modules\n"
        "print(len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 0)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SAID} | said
    command = [sys.executable, "-c", code, str(MODEL), str(tmp_path / "out.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    threads = int(done.stdout.split()[-1])
    assert threads in ((0, 2) if said and (os.cpu_count() or 1) > 1 else (0, 1))
