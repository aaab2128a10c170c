"""Cases of the fuzzer: number -> a mutant and the one command that is given it. The same number is the same case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from random import Random

from tests.compatibility import corpus
from tests.fuzz.mutations import mutant
from tests.fuzz.seeds import EXTERNAL, HOSTS, MODULES, Seed, seeds

IN_CI = 1_000
"""cases that CI runs"""
MUTANT, SEED, RESULT, RECIPE = "mutant.onnx", "seed.onnx", "result.onnx", "recipe.yaml"
_COMMANDS = {
    "insert": 24,
    "apply": 8,
    "remove": 16,
    "sites": 10,
    "info": 5,
    "diff": 10,
    "verify": 10,
    "tensorrt check": 10,
    "weights": 4,
    "block": 3,
}
"""command -> how often; `weights` and `block` are `insert` with the mutant as a file of weights or as a block"""
_RECORDS = {"remove": 0.9, "verify": 0.9, "weights": 0.9, "insert": 0.3}
"""how often the seed is one with insertions in it"""


@dataclass(frozen=True)
class Case:
    """One mutant and its command line."""

    number: int
    seed: str
    arguments: tuple[str, ...]
    files: Mapping[str, bytes] = field(repr=False)
    """what lies in the folder before"""
    changes: str | None = None
    """the file that the command may write"""

    @property
    def edits(self) -> str:
        """The model that the result is made of."""
        return SEED if self.arguments[:2] == ("insert", SEED) else MUTANT


@cache
def _blocks() -> tuple[Seed, ...]:
    return tuple(Seed(path.stem, path.read_bytes(), (), ()) for path in sorted(corpus.OWN.glob("*.onnx")))


def case(number: int) -> Case:
    """Make the case of a number."""
    rng = Random(number)
    command = rng.choices(list(_COMMANDS), list(_COMMANDS.values()))[0]
    pool = [each for each in seeds() if each.ids] if rng.random() < _RECORDS.get(command, 0.4) else seeds()
    seed = rng.choice(_blocks() if command == "block" else pool)
    files = {MUTANT: mutant(seed.data, [each.data for each in seeds()], rng), SEED: seed.data}
    if seed.name.startswith("external"):
        files[EXTERNAL] = (HOSTS / EXTERNAL).read_bytes()
    if command == "block":
        files[SEED] = seeds()[-1].data
    make = {"insert": _insert, "apply": _apply, "remove": _remove, "weights": _weights, "block": _block}.get(command)
    arguments = make(seed, files, rng) if make else _reading(command, rng)
    changes = None
    if make and "--in-place" in arguments:
        changes = MUTANT
    elif "-o" in arguments:
        changes = RESULT
        if "--force" in arguments:
            files[RESULT] = b"here before"
    if rng.random() < 0.15:
        arguments = [*arguments, "--json"]
    return Case(number, seed.name, tuple(arguments), files, changes)


def _reading(command: str, rng: Random) -> list[str]:
    if command == "diff":
        return ["diff", *rng.sample([MUTANT, SEED], 2)]
    if command == "verify":
        return ["verify", MUTANT, "--seeds", "1", "--providers", "cpu"]
    if command == "tensorrt check":
        more = rng.choice(([], ["--dla", "orin", "--precision", "fp16"], ["--precision", "int8"], ["--version", "8.6"]))
        return ["tensorrt", "check", MUTANT, "--parser", "none", *more]  # NVIDIA's library is not ours to test
    return [command, MUTANT]


def _place(rng: Random) -> list[str]:
    return rng.choice((["-o", RESULT], ["-o", RESULT, "--force"], ["--in-place"]))


def _where(seed: Seed, rng: Random) -> list[str]:
    way = rng.random()
    if way < 0.1 or not seed.selectors:
        return ["--after", rng.choice(("role:p4", "op:Conv[0]", "op:*[-1]", "C2f[-1]", "/model.{0,1,2}", "tensor:x"))]
    flag = "--before" if way < 0.2 else "--after"
    return [word for place in rng.sample(seed.selectors, rng.choice((1, 1, 1, 2))) for word in (flag, place)]


def _insert(seed: Seed, files: dict[str, bytes], rng: Random) -> list[str]:
    module = rng.choice(MODULES)
    arguments = ["insert", MUTANT, "--module", module, *_where(seed, rng), *_place(rng)]
    if module in ("se", "cbam", "coordatt"):
        arguments += ["--set", "reduction=2"]
    for option, values in {
        "--gate": ["residual"],
        "--init": ["identity"],
        "--precision": ["site", "fp32", "fp16"],
        "--target": ["onnxruntime", "dla"],
        "--qdq": ["int8"],
    }.items():
        if rng.random() < 0.12:
            arguments += [option, rng.choice(values)]
    return arguments if rng.random() < 0.2 else [*arguments, "--no-verify"]


def _apply(seed: Seed, files: dict[str, bytes], rng: Random) -> list[str]:
    lines = []
    for _ in range(rng.choice((1, 2, 4))):
        flag, place = _where(seed, rng)[:2]
        lines.append(f"- {{module: '{rng.choice(MODULES)}', {flag[2:]}: '{place}', settings: {{}}}}\n")
    files[RECIPE] = "".join(lines).encode()
    return ["apply", RECIPE, MUTANT, *_place(rng), "--no-verify"]


def _remove(seed: Seed, files: dict[str, bytes], rng: Random) -> list[str]:
    way = rng.random()
    if way < 0.1:
        return ["remove", MUTANT]
    which = ["--all"] if way < 0.5 or not seed.ids else [rng.choice(seed.ids)]
    return ["remove", MUTANT, *which, *_place(rng)]


def _weights(seed: Seed, files: dict[str, bytes], rng: Random) -> list[str]:
    prefix = rng.choice(seed.ids or ("model.0",))
    module = prefix.rpartition(".")[2].partition("_")[0]
    where = ["--after", rng.choice(seed.selectors or ("model.0",))]
    weights = ["--weights", f"{MUTANT}:{prefix}"]
    return ["insert", SEED, "--module", module, *where, *weights, "-o", RESULT, "--no-verify"]


def _block(seed: Seed, files: dict[str, bytes], rng: Random) -> list[str]:
    places = rng.choice(seeds()[-1].selectors)
    checked = [] if rng.random() < 0.3 else ["--no-verify"]
    return ["insert", SEED, "--module", f"./{MUTANT}", "--after", places, "-o", RESULT, *checked]
