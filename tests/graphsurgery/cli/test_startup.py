"""Start-up: what needs no model loads no library for models, and costs little."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

resource = pytest.importorskip("resource")  # which Windows has not

CHEAP = {
    "version": ("--version",),
    "help": ("--help",),
    "help of a command": ("insert", "--help"),
    "help in a group": ("tensorrt", "check", "--help"),
    "no such command": ("inser",),
    "no such option": ("insert", "--modul", "simam"),
    "a missing option": ("insert", "x.onnx"),
    "a wrong number": ("insert", "x.onnx", "-m", "simam", "-a", "/model.8", "--seed", "-1"),
    "a wrong choice": ("insert", "x.onnx", "-m", "simam", "-a", "/model.8", "--gate", "half", "-o", "y.onnx"),
    "no place": ("insert", "x.onnx", "-m", "simam", "-o", "y.onnx"),
    "an option twice": ("verify", "x.onnx", "--seeds", "1", "--seeds", "2"),
    "an error as JSON": ("insert", "--modul", "simam", "--json"),
}
HEAVY = {"numpy", "onnx", "onnx_graphsurgeon", "yaml", "rich", "torch", "onnxruntime"}
LIMIT = 0.12
"""seconds of a processor, Python's own start included"""


@pytest.mark.parametrize("name", CHEAP)
def test_loads_nothing_heavy(name: str) -> None:
    code = (
        "import sys; from graphsurgery.cli.main import main; code = main(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *CHEAP[name]], capture_output=True, text=True)
    assert done.returncode == (0 if "help" in name or name == "version" else 2), done.stderr
    loaded = done.stderr.splitlines()[-1].split()
    assert "graphsurgery.cli.main" in loaded
    assert HEAVY.isdisjoint(loaded)


def test_completion_loads_nothing_heavy() -> None:
    words = {"_GRAPHSURGERY_COMPLETE": "complete_bash", "COMP_WORDS": "graphsurgery ins", "COMP_CWORD": "1"}
    code = (
        "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        "from graphsurgery.cli.main import main; main([])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **words})
    assert "insert" in done.stdout.split()
    assert HEAVY.isdisjoint(done.stderr.split())


def cpu(arguments: list[str]) -> float:
    """Seconds of a processor that a run takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(arguments, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.long
@pytest.mark.parametrize("name", CHEAP)
def test_costs_little(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of ten, compiled: what is left of the noise of other programs is small."""
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    command = [sys.executable, "-m", "graphsurgery", *CHEAP[name]]
    assert min(cpu(command) for _ in range(11)) <= LIMIT
