"""Compare what two versions make of the insert requests, byte by byte.

    python -m tests.compatibility.compare --base PYTHON [--now PYTHON] [--model TEXT] [--save FILE]
    python -m tests.compatibility.compare --hashes FILE [--now PYTHON]

PYTHON is an interpreter with the version installed; without --now, this checkout is run by the interpreter at hand.
--save keeps the results of --base, which --hashes compares with later. Ends with 1 if a result differs that changes.py
does not name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.compatibility import changes, corpus
from tests.compatibility.insert_requests import MODELS, InsertRequest, requests

WORKER = Path(__file__).with_name("worker.py")
REFUSED = "refused: "


def results(asked: Sequence[InsertRequest], python: str | None = None) -> Iterator[str]:
    """What a version makes of each request, as worker.py prints it; None: this checkout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if python is None:
        environment["PYTHONPATH"] = str(corpus.ROOT)
    paths = {name: str(MODELS[name].path()) for name in {each.model for each in asked}}
    lines = [json.dumps({"model": paths[each.model], "arguments": dict(each.arguments)}) for each in asked]
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryDirectory() as folder:
        told.write("\n".join(lines))
        told.seek(0)
        command = [python or sys.executable, str(WORKER)]
        with subprocess.Popen(
            command, stdin=told, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
        ) as worker:
            assert worker.stdout is not None
            print(f"running {worker.stdout.readline().strip()}", file=sys.stderr)
            yield from (line.strip() for line in worker.stdout)
    if worker.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {worker.returncode}")


def collected(asked: Sequence[InsertRequest], python: str | None) -> dict[str, str]:
    started = time.monotonic()
    found: dict[str, str] = {}
    for request, outcome in zip(asked, results(asked, python), strict=True):
        found[request.key] = outcome
        if len(found) % 50 == 0:
            print(f"{len(found)} of {len(asked)}, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    against = parser.add_mutually_exclusive_group(required=True)
    against.add_argument("--base", metavar="PYTHON", help="the version to compare with")
    against.add_argument("--hashes", metavar="FILE", type=Path, help="what --save kept of it")
    parser.add_argument("--now", metavar="PYTHON", help="the version to compare; without, this checkout")
    parser.add_argument("--model", metavar="TEXT", default="", help="only models whose name holds this")
    parser.add_argument("--save", metavar="FILE", type=Path, help="keep the results of --base")
    given = parser.parse_args()
    asked = [each for each in requests() if given.model in each.model]
    before = json.loads(given.hashes.read_text()) if given.hashes else collected(asked, given.base)
    if given.save:
        given.save.write_text(json.dumps(before, indent=1, ensure_ascii=False) + "\n")
    now = collected(asked, given.now)
    return report(asked, before, now)


def report(asked: Sequence[InsertRequest], before: dict[str, str], now: dict[str, str]) -> int:
    """Print how many are equal, and list the others. 1 if one of them is not meant to differ."""
    differ = [each for each in asked if before[each.key] != now[each.key]]
    refused = [each for each in asked if before[each.key].startswith(REFUSED)]
    for request in differ:
        marks = ["computed in half precision"] if request.reduced else []
        marks += [why] if (why := changes.reason(request.key)) else []
        print(f"differs: {request.key}{''.join(f' [{mark}]' for mark in marks)}")
        if REFUSED in before[request.key] + now[request.key]:
            print(f"    {before[request.key]} -> {now[request.key]}")
    made = Counter(each.model for each in asked if each not in refused)
    same = Counter(each.model for each in asked if each not in refused and each not in differ)
    for model, count in made.items():
        print(f"{model}: {same[model]} of {count} equal to the byte")
    reduced = sum(each.reduced for each in asked)
    unmeant = [each for each in differ if changes.reason(each.key) is None]
    print(
        f"{same.total()} of {made.total()} models equal to the byte; {len(refused)} requests refused before, "
        f"{sum(each not in differ for each in refused)} of them in the same way; {len(unmeant)} unmeant differences; "
        f"{reduced} requests ask for a block in half precision, {sum(each.reduced for each in differ)} of them differ"
    )
    return 1 if unmeant else 0


if __name__ == "__main__":
    sys.exit(main())
