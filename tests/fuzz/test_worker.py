"""The fuzzer itself: its cases are what they say, and it finds every kind of fault."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf.message import DecodeError

from tests.fuzz import worker
from tests.fuzz.cases import IN_CI, MUTANT, RESULT, SEED, Case, case
from tests.fuzz.seeds import seeds
from tests.models import chain

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit of memory needs Linux")


def test_a_number_is_always_the_same_case() -> None:
    assert [case(number) for number in (3, 14, 15)] == [case(number) for number in (3, 14, 15)]


def test_the_cases_in_ci_are_of_every_command_and_of_every_seed() -> None:
    cases = [case(number) for number in range(IN_CI)]
    commands = Counter(" ".join(each.arguments[: 1 + (each.arguments[0] == "tensorrt")]) for each in cases)
    assert set(commands) == {"insert", "remove", "sites", "info", "diff", "verify", "tensorrt check", "apply"}
    assert {each.seed for each in cases} >= {seed.name for seed in seeds()}
    assert len(seeds()) >= 30
    same = sum(each.files[MUTANT] == each.files[SEED] for each in cases if each.edits == MUTANT)
    assert same < IN_CI / 10
    assert sum(map(_decodes, cases)) > IN_CI / 2, "most have to get behind the first gate"


def _decodes(this: Case) -> bool:
    try:
        onnx.ModelProto.FromString(this.files[MUTANT])
    except DecodeError:
        return False
    return True


def fails(arguments: list[str]) -> int:
    raise ValueError("a bug")


def exits(arguments: list[str]) -> int:
    raise SystemExit(2)


def says_nothing(arguments: list[str]) -> int:
    return 2


def ends_oddly(arguments: list[str]) -> int:
    return 139


def admits(arguments: list[str]) -> int:
    print("graphsurgery: error: there is not enough memory on this machine", file=sys.stderr)
    return 3


def hangs(arguments: list[str]) -> int:
    while True:
        pass


def changes_its_input(arguments: list[str]) -> int:
    Path(MUTANT).write_bytes(b"")
    print("graphsurgery: error: no", file=sys.stderr)
    return 2


def leaves_a_part(arguments: list[str]) -> int:
    Path("part").write_bytes(b"")
    return 0


def writes_what_is_none(arguments: list[str]) -> int:
    made = chain("Relu")
    made.graph.node[0].input[0] = "nothing"
    Path(RESULT).write_bytes(made.SerializeToString())
    return 0


def writes(arguments: list[str]) -> int:
    Path(RESULT).write_bytes(chain("Relu").SerializeToString())
    return 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (fails, "raised"),
        (exits, "raised"),
        (says_nothing, "ended with 2 and did not say why"),
        (ends_oddly, "ended with 139"),
        (admits, "ended with 3 and said graphsurgery: error: there is not enough memory"),
        (hangs, "ran for more than 1 s"),
        (changes_its_input, "mutant.onnx was changed, and the command ended with 2"),
        (leaves_a_part, "part was changed, and the command ended with 0"),
        (writes_what_is_none, "the result is not valid, and what it was made of was: "),
        (writes, None),
    ],
)
def test_a_fault_is_found(command: Any, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "main", command)
    monkeypatch.setattr(worker, "SECONDS", 1)
    monkeypatch.chdir(tmp_path)
    model = chain("Relu").SerializeToString()
    this = Case(0, "chain", ("insert", MUTANT), {MUTANT: model, SEED: model}, RESULT)
    found = list(worker.findings(this, tmp_path))
    assert (said is None) == (not found), found
    assert all(each.startswith(str(said)) for each in found)


def test_memory_beyond_the_limit_and_a_dead_process_are_found(tmp_path: Path) -> None:
    code = (
        "import os, sys; from tests.fuzz import worker; from pathlib import Path\n"
        "from tests.fuzz.cases import Case, MUTANT\n"
        "worker.case = lambda number: Case(number, 'none', (), {MUTANT: b''})\n"
        "steps = [lambda: bytearray(3 << 30), os.abort]\n"
        "worker.main = lambda arguments: steps.pop(0)()\n"
        "worker.run(0, 2, Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    first, ended, finding, last = ran.stdout.splitlines()
    assert (first, ended[:9], last) == ("run 0", "ran 0 Non", "run 1")
    assert "MemoryError" in json.loads(finding)["finding"]
    assert (tmp_path / "0" / MUTANT).exists()
    assert ran.returncode < 0
