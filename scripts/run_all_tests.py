#!/usr/bin/env python
"""Run all tests, those that CI leaves out included, in parts that end within an hour each on two cores.

    python scripts/run_all_tests.py               every part that has not passed at this state of the tree
    python scripts/run_all_tests.py --part 3/8    one part
    python scripts/run_all_tests.py --status      what was run when, and what was not

A part that has ended is written down in build/test-all/log.json at once, so that a run that was interrupted goes on
with the next part. build/test-all/log.md shows the same to a reader.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "test-all"
PARTS = 8
OK, NO_TESTS = 0, 5  # pytest's exit codes


@dataclass(frozen=True)
class Wanted:
    """What is to be run."""

    selection: str
    """files and folders of tests; empty: all tests"""
    state: str
    """of the tree: a commit, and a digest of what is changed in it"""


@dataclass(frozen=True)
class Run(Wanted):
    """One part that has ended."""

    part: str
    started: str
    seconds: float
    passed: int
    failed: int
    skipped: int
    exit_code: int

    @property
    def good(self) -> bool:
        return self.exit_code in (OK, NO_TESTS)

    def __str__(self) -> str:
        failed = f", {self.failed:,} failed" if self.failed else ""
        stopped = "" if self.good or self.failed else f", pytest ended with {self.exit_code}"
        counts = f"{self.passed:,} passed{failed}, {self.skipped:,} skipped{stopped}"
        return f"{counts}, {self.seconds:,.0f} s, {self.started} at {self.state}"


class Log:
    """The runs that have ended, in a file that is rewritten after each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "log.json"
        self.runs = (
            [Run(**run) for run in json.loads(self._file.read_text(encoding="utf-8"))] if self._file.exists() else []
        )

    def add(self, run: Run, parts: int) -> None:
        """Write a run down."""
        self.runs.append(run)
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(run) for run in self.runs], indent=1) + "\n", encoding="utf-8")
        fresh.replace(self._file)
        lines = ["| part | result |", "|---|---|", *(f"| {part} | {what} |" for part, what in self.status(run, parts))]
        (self.folder / "log.md").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def last(self, part: str, selection: str, state: str | None = None) -> Run | None:
        """The last run of a part: in one state of the tree, or in any."""
        return next(
            (
                run
                for run in reversed(self.runs)
                if (run.part, run.selection) == (part, selection) and state in (None, run.state)
            ),
            None,
        )

    def status(self, wanted: Wanted, parts: int) -> Iterator[tuple[str, str]]:
        """(part, what is known of it) for every part."""
        for part in names(parts):
            run = self.last(part, wanted.selection, wanted.state)
            before = self.last(part, wanted.selection)
            yield part, str(run) if run else f"not run at {wanted.state}; before: {before or 'never'}"


def names(parts: int) -> list[str]:
    return [f"{number}/{parts}" for number in range(1, parts + 1)]


def state_of_the_tree() -> str:
    """The commit; where files differ from it, with a digest of the differences."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout

    commit = git("rev-parse", "--short=12", "HEAD").decode().strip()
    changes = hashlib.sha256(git("diff", "HEAD"))
    for name in filter(None, git("ls-files", "-z", "--others", "--exclude-standard").split(b"\0")):
        changes.update(name + b"\0" + (ROOT / name.decode()).read_bytes())
    clean = changes.digest() == hashlib.sha256(b"").digest()
    return commit if clean else f"{commit}+{changes.hexdigest()[:8]}"


def run_part(part: str, wanted: Wanted, selection: Sequence[str], workers: int, folder: Path) -> Run:
    """Run the tests of one part."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / f"part-{part.replace('/', '-of-')}.xml"
    report.unlink(missing_ok=True)
    options = ["-m", "", "--part", part, f"--junitxml={report}", f"--numprocesses={workers}"]
    started, begin = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), time.monotonic()
    ended = subprocess.run([sys.executable, "-m", "pytest", *options, *selection], cwd=ROOT, check=False)
    seconds = round(time.monotonic() - begin, 1)
    suite = next(ElementTree.parse(report).iter("testsuite")).attrib if report.exists() else {}
    number = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    passed = number["tests"] - failed - number["skipped"]
    return Run(
        **asdict(wanted),
        part=part,
        started=started,
        seconds=seconds,
        passed=passed,
        failed=failed,
        skipped=number["skipped"],
        exit_code=ended.returncode,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", metavar="K/N", help="only this part of so many")
    parser.add_argument("--parts", type=int, default=PARTS, help=f"into how many parts ({PARTS})")
    parser.add_argument("--status", action="store_true", help="only say what was run when")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the log lies (build/test-all)")
    parser.add_argument("selection", nargs="*", help="files or folders of tests (all)")
    given = parser.parse_args(arguments)
    parts = int(given.part.partition("/")[2]) if given.part else given.parts
    if given.part and given.part not in names(parts):
        parser.error(f"--part {given.part}: from 1/{parts} to {parts}/{parts}")
    log, wanted = Log(given.folder), Wanted(" ".join(given.selection), state_of_the_tree())
    if not given.status:
        for part in [given.part] if given.part else names(parts):
            done = log.last(part, wanted.selection, wanted.state)
            if given.part or not (done and done.good):
                log.add(run_part(part, wanted, given.selection, given.workers, given.folder), parts)
    for part, what in log.status(wanted, parts):
        print(f"{part:>5}  {what}")
    asked = [given.part] if given.part else names(parts)
    runs = [log.last(part, wanted.selection, wanted.state) for part in asked]
    return 0 if given.status or all(run and run.good for run in runs) else 1


if __name__ == "__main__":
    raise SystemExit(main())
