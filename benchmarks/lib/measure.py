"""Whole processes, measured from outside and in turn: A B C, A B C ... so that a drifting machine drifts for all of
them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"


def run(command: Sequence[str]) -> tuple[float, float, float]:
    """(wall seconds, seconds of CPU, peak resident memory in MB) of one run of a command. RuntimeError if it fails.

    The peak of a process counts the memory of the one that started it; so this process has to stay small.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {errors.decode(errors='replace')}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def together(command: Sequence[str]) -> dict[str, float]:
    """Wall time (s), CPU time (s) and peak memory (MB) of one run of a command with all processes that it starts.

    CPU time is that of processes which have ended when the command does. Memory is looked at twice a second: what the
    processes have resident, with what they share counted for each of them. RuntimeError if the command fails.
    """
    import psutil  # not above: see run()

    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, sum(_resident(each) for each in (watched, *watched.children(recursive=True))))
        time.sleep(0.5)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}")
    return {"seconds": wall, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mb": peak / 2**20}


def _resident(process: Any) -> int:
    import psutil

    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def interleaved(commands: Mapping[str, Sequence[str]], rounds: int, output: Path) -> dict[str, dict[str, float]]:
    """Median, least and largest wall time (s), median CPU time (s) and median peak memory (MB) of each command, after
    one uncounted round.
    """
    return {name: summary(runs) for name, runs in in_turn(commands, rounds, output).items()}


def in_turn(
    commands: Mapping[str, Sequence[str]], rounds: int, output: Path
) -> dict[str, list[tuple[float, float, float]]]:
    """What :func:`run` gives of each command in each round, after one uncounted round."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for count in range(rounds + 1):
        for name, command in commands.items():
            output.unlink(missing_ok=True)
            measured = run(command)
            if count:
                found[name].append(measured)
    return found


def summary(runs: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    """The figures of one command, from those of its runs."""
    return {
        "seconds": statistics.median(wall for wall, _, _ in runs),
        "seconds_min": min(wall for wall, _, _ in runs),
        "seconds_max": max(wall for wall, _, _ in runs),
        "cpu_seconds": statistics.median(cpu for _, cpu, _ in runs),
        "peak_mb": statistics.median(memory for _, _, memory in runs),
    }


def geometric_mean(values: Sequence[float]) -> float:
    """NaN where there are none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def keep(name: str, data: Mapping[str, object], folder: Path = RESULTS) -> Path:
    """Write figures, with the machine and the versions that gave them, to FOLDER/NAME.json."""
    from graphsurgery.bench.machine import PACKAGES, describe  # not above: see run()

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    machine = describe((*PACKAGES, "onnx-graphsurgeon", "protobuf", "torch"))
    path.write_text(json.dumps({"machine": machine, **data}, indent=1) + "\n")
    return path
