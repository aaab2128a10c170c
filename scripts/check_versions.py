#!/usr/bin/env python
"""Run the tests that are marked `smoke` in environments of other Pythons and other versions of the dependencies.

    python scripts/check_versions.py               every environment for which there is an interpreter
    python scripts/check_versions.py lowest-3.10   one
    python scripts/check_versions.py --list        what there is

An environment is called `lowest-PYTHON`, with the lowest versions that pyproject.toml allows, or `newest-PYTHON`. It is
made in build/versions/ once for each state of pyproject.toml; --fresh makes it anew, with what is newest by then. An
interpreter is looked for as python3.10 and so on, then among those of pyenv; uv installs, where there is one. PyTorch
is left out: the tests do without.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "versions"
EXTRAS = ("cpu", "images", "ir", "report", "sweep", "weights")
TOOLS = ("pytest>=8", "hypothesis")
SHOWN = ("numpy", "onnx", "onnxruntime", "onnx-ir", "typer")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
ENVIRONMENTS = ("lowest-3.10", *(f"newest-{python}" for python in PYTHONS))
SECONDS = 180
"""of a processor that the tests of one environment may take; the machine may be busy"""
_REQUIREMENT = re.compile(r'"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)[^"]*"')


@dataclass(frozen=True)
class Environment:
    """A Python with some versions of the dependencies."""

    name: str
    interpreter: Path

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def make(self, *, fresh: bool) -> None:
        """Install what it is to have, unless that is there already."""
        stamp = self.folder / "made-of"
        state = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
        if not fresh and stamp.exists() and stamp.read_text(encoding="utf-8") == state:
            return
        subprocess.run([self.interpreter, "-m", "venv", "--clear", self.folder], check=True)
        lowest = self.folder / "lowest.txt"
        lowest.write_text("".join(f"{each}\n" for each in lowest_versions()), encoding="utf-8")
        limits = ["--constraint", str(lowest)] if self.name.startswith("lowest-") else []
        wanted = ["--editable", f"{ROOT}[{','.join(EXTRAS)}]", *TOOLS]
        pip = [self.python, "-m", "pip", "install", "--disable-pip-version-check"]
        uv = shutil.which("uv")  # the same, in seconds
        installer = [uv, "pip", "install", "--python", self.python] if uv else pip
        subprocess.run([*installer, "--quiet", *limits, *wanted], check=True)
        stamp.write_text(state, encoding="utf-8")

    def versions(self) -> str:
        code = f"import importlib.metadata as m; print(*(f'{{n}} {{m.version(n)}}' for n in {SHOWN!r}), sep=', ')"
        return subprocess.run([self.python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    def test(self) -> tuple[bool, str]:
        """Whether the tests pass, and in how long."""
        begin, before = time.monotonic(), os.times()
        command = [self.python, "-m", "pytest", "-q", "-m", "smoke", "-p", "no:cacheprovider", *map(str, smoke_files())]
        ended = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
        seconds, after = time.monotonic() - begin, os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        print(ended.stdout, flush=True)
        last = next((line for line in reversed(ended.stdout.splitlines()) if line.strip()), "no output")
        counts = re.sub(r" in [0-9.]+s.*", "", last.strip("= "))
        return ended.returncode == 0 and used <= SECONDS, f"{counts}, {seconds:.0f} s, {used:.0f} s of a processor"


def lowest_versions() -> list[str]:
    """The lowest versions of the dependencies, and of those in the extras, as pyproject.toml states them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = dict(_REQUIREMENT.findall(text[text.index("\ndependencies") : text.index("\ntest = [")]))
    return [f"{name}=={version}" for name, version in found.items()]


def smoke_files() -> list[Path]:
    """The files with such tests: the others may import what is not there."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [path for path in files if "mark.smoke" in path.read_text(encoding="utf-8")]


def interpreter(version: str) -> Path | None:
    """A Python of that version on this machine."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python")))
    for candidate in (sys.executable, *filter(None, named)):
        told = subprocess.run(
            [candidate, "-c", "import sys; print(sys._base_executable, *sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()
        if told[1:] == version.split("."):
            return Path(told[0])
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="only say which environments there are")
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    parser.add_argument("names", nargs="*", metavar="ENVIRONMENT", help=f"{', '.join(ENVIRONMENTS)} (all)")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in ENVIRONMENTS]:
        parser.error(f"there is no environment {unknown[0]}; there are {', '.join(ENVIRONMENTS)}")
    good, lines = True, []
    for name in given.names or ENVIRONMENTS:
        found = interpreter(name.partition("-")[2])
        if found is None:
            lines.append(f"{name:<12} not run: there is no Python {name.partition('-')[2]} here")
            good = good and name not in given.names
        elif given.list:
            lines.append(f"{name:<12} {found}")
        else:
            environment = Environment(name, found)
            environment.make(fresh=given.fresh)
            passed, counts = environment.test()
            good = good and passed
            lines.append(f"{name:<12} {'passed' if passed else 'FAILED'}: {counts} ({environment.versions()})")
    print(*lines, sep="\n")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
