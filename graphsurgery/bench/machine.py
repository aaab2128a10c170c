"""The machine that figures belong to: processor, GPUs with their clocks, versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..runtime.providers import versions

PACKAGES = ("onnx", "numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt")
_CPUINFO = Path("/proc/cpuinfo")
_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_GPU_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "memory_mib": "memory.total",
    "sm_mhz": "clocks.sm",
    "sm_max_mhz": "clocks.max.sm",
    "memory_mhz": "clocks.mem",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
    "performance_state": "pstate",
}
_TEXTS = ("name", "driver", "performance_state")


def describe(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """{"processor", "cores": that this process may use, "processor_mhz": [lowest, highest now] or null, "governor" or
    null, "system", "python", "versions": {package: version}, "cuda": what onnxruntime was built for or null, "gpus"}.
    """
    speeds = sorted(float(value) for value in _cpuinfo("cpu MHz"))
    return {
        "processor": next(_cpuinfo("model name"), platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor_mhz": [speeds[0], speeds[-1]] if speeds else None,
        "governor": _text(_CPUFREQ / "scaling_governor"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(packages),
        "cuda": _cuda(),
        "gpus": gpus(),
    }


def gpus() -> list[dict[str, Any]]:
    """The NVIDIA GPUs as they are now, by nvidia-smi: {"name", "driver", "memory_mib", "sm_mhz", "sm_max_mhz",
    "memory_mhz", "temperature_c", "power_w", "performance_state"}, null for what it does not tell. None without it.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = f"--query-gpu={','.join(_GPU_FIELDS.values())}"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return read_gpus(done.stdout) if done.returncode == 0 else []


def read_gpus(table: str) -> list[dict[str, Any]]:
    """The output of nvidia-smi, a line for each GPU, as :func:`gpus` gives it."""
    rows = [line.split(", ") for line in table.splitlines() if line.strip()]
    return [
        {key: cell if key in _TEXTS else _number(cell) for key, cell in zip(_GPU_FIELDS, row, strict=True)}
        for row in rows
    ]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:  # [N/A], [Not Supported]
        return None


def _cpuinfo(key: str) -> Iterator[str]:
    for line in (_text(_CPUINFO) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            yield value.strip()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _cuda() -> str | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    return getattr(onnxruntime, "cuda_version", None) or None
