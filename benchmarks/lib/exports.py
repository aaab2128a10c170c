"""The exporters' forms of the blocks, and what the blocks give, made in processes of their own: torch has crashed after
many exports in one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.lib.blocks import Size, label

EXPECTED = "expected"
"""the kind that is no export: an input of the module, and what the module gives for it in float64"""
_A_PROCESS = 12
_SCRIPT = Path(__file__).resolve().parent / "export_blocks.py"


def path(folder: Path, configuration: int, size: Size, batch: int, form: str, kind: str) -> Path:
    """Where the export of a form by ``kind`` (torchscript, onnxslim, dynamo) lies, or what is expected of it."""
    shape = "x".join(map(str, (batch, *size)))
    return folder / f"{configuration}-{shape}-{form}-{kind}{'.npz' if kind == EXPECTED else '.onnx'}"


def export(
    wanted: Sequence[tuple[int, str, Size]], exporters: Sequence[str], batch: int, folder: Path, jobs: int | None = None
) -> None:
    """Export (configuration, form, size) with each exporter to ``folder``, with what is expected of each, leaving out
    what is there. RuntimeError where an exporter fails. ``jobs``: processes at a time, as many as processors where not
    given.
    """

    def missing(exporter: str) -> list[tuple[int, str, Size]]:
        asked = [one for one in wanted if exporter != EXPECTED or one[1] == "own"]
        return [one for one in asked if not path(folder, one[0], one[2], batch, one[1], exporter).exists()]

    todo = {exporter: missing(exporter) for exporter in (*exporters, EXPECTED)}
    chunks = [(e, all_[n : n + _A_PROCESS]) for e, all_ in todo.items() for n in range(0, len(all_), _A_PROCESS)]
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        for problem in pool.map(lambda chunk: _run(chunk[0], chunk[1], batch, folder), chunks):
            if problem:
                raise RuntimeError(problem)


def _run(exporter: str, wanted: Sequence[tuple[int, str, Size]], batch: int, folder: Path) -> str:
    """Export in one process; where that fails, each in its own. What went wrong then, or nothing."""
    if not _failure(exporter, wanted, batch, folder):
        return ""
    for one in wanted:
        error = _failure(exporter, [one], batch, folder)
        if error:
            return f"{label(one[0])} ({one[1]}): {exporter} failed:\n{error}"
    return ""


def _failure(exporter: str, wanted: Sequence[tuple[int, str, Size]], batch: int, folder: Path) -> str:
    texts = [f"{configuration}:{form}:{'x'.join(map(str, size))}" for configuration, form, size in wanted]
    command = [sys.executable, str(_SCRIPT), exporter, str(folder), str(batch), *texts]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    return (result.stderr[-2000:] or f"exit status {result.returncode}") if result.returncode else ""
