"""The latency of templates against exports of the same PyTorch module.

Exports: the TorchScript exporter, the dynamo exporter, and the former after onnxslim, each of the module as its authors
publish it (published.py) and of our own module, which does the same with fewer operations. All models of a block, and
one export once more as a control, run in one process, one call at a time in random order, on one thread pool and
through I/O binding. Their outputs are compared with the module's in float64 before anything is timed: a template that
differs is an error, an export that differs is left out and named. A ratio is the best export's median over the
template's. Slower beyond noise is what is slower than the best export by more than the control differs from its like in
nine rounds of ten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib import exports
from benchmarks.lib.blocks import CONFIGURATIONS, REARRANGED, SIZES, Size, forms, label, matches, sizes_of, template
from benchmarks.lib.measure import geometric_mean
from graphsurgery.errors import MissingProvider
from graphsurgery.runtime.providers import (
    NVIDIA,
    PROVIDERS,
    available_providers,
    cannot_start,
    chain,
    onnxruntime,
    preload,
)
from graphsurgery.runtime.timing import in_turns, wall

FORMS = ("published", "own")
WARM_UP, CALLS_A_ROUND, FEWEST_ROUNDS = 20, 5, 12


@dataclass(frozen=True)
class Plan:
    """What is timed, and how."""

    provider: str = "cpu"
    target: str = "onnxruntime"
    rounds: int = 60
    threads: int = 1
    """of the global pool, which the process has to make before any session; 1: no pool"""
    configurations: Sequence[int] = range(len(CONFIGURATIONS))
    sizes: Sequence[Size] = SIZES
    batch: int = 1
    exporters: Sequence[str] = ("torchscript", "dynamo")
    """the former is also given to onnxslim"""

    seconds: float = 2.5
    """for the models of one block at one size; slow ones get fewer rounds than ``rounds``"""

    @property
    def kinds(self) -> list[str]:
        """What is made of a module."""
        return [*self.exporters, *(["onnxslim"] if "torchscript" in self.exporters else [])]

    def cases(self) -> list[tuple[int, Size]]:
        """The configurations and sizes that are timed."""
        return [(number, size) for number in self.configurations for size in sizes_of(number, self.sizes)]


class Candidate:
    """One model, ready to run on inputs and outputs that stay where they are."""

    def __init__(self, model: bytes, x: np.ndarray[Any, Any], provider: str, threads: int) -> None:
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.use_per_session_threads = threads == 1
        options.log_severity_level = 3
        asked = chain(provider, available_providers(), exact=False)
        self.session = ort.InferenceSession(model, options, providers=asked, enable_fallback=0)
        if self.session.get_providers()[0] != PROVIDERS[provider]:
            raise MissingProvider(cannot_start(provider))
        self.binding = self.session.io_binding()
        device = "cuda" if provider in NVIDIA else "cpu"
        value = ort.OrtValue.ortvalue_from_numpy(x, device)
        self.output = ort.OrtValue.ortvalue_from_numpy(np.zeros_like(x), device)
        self.binding.bind_ortvalue_input(self.session.get_inputs()[0].name, value)
        self.binding.bind_ortvalue_output(self.session.get_outputs()[0].name, self.output)
        self.run()

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)


def measure(
    models: dict[str, bytes], plan: Plan, x: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], seed: int = 1
) -> dict[str, Any]:
    """Medians in microseconds, and the ratios, of the models of one block for x [N, C, H, W]. ``expected``: what the
    block gives there. AssertionError if its template gives something else.
    """
    models, wrong = _agreeing(models, plan, x, expected)
    reference = next(name for name in models if name.startswith("own"))
    models |= {"control": models[reference]}
    rng = np.random.default_rng(seed)
    # what is made first has other memory than what is made last, which alone is worth a few percent
    order = [list(models)[n] for n in rng.permutation(len(models))]
    made = {name: Candidate(models[name], x, plan.provider, plan.threads) for name in order}
    found = {name: made[name] for name in models}
    timers = [wall(candidate.run) for candidate in found.values()]
    a_turn = 1e-3 * sum(times[0] for times in in_turns(timers, 1, warm_up=2))
    rounds, calls = _affordable(a_turn, plan)
    taken = in_turns(timers, rounds * calls, warm_up=WARM_UP if calls > 1 else 3, rng=rng)
    micros = {name: 1e3 * np.array(times) for name, times in zip(found, taken, strict=True)}
    medians = {name: float(np.median(values)) for name, values in micros.items()}
    by_round = {name: np.median(values.reshape(rounds, -1), axis=1) for name, values in micros.items()}
    noise = float(np.percentile(np.abs(np.log(by_round[reference] / by_round["control"])), 90))
    row: dict[str, Any] = {"microseconds": {name: round(value, 1) for name, value in medians.items()}, "noise": noise}
    row["left out"] = wrong
    for form in FORMS:
        exported = [name for name in medians if name.startswith(form)] or [n for n in medians if n.startswith("own")]
        best = min(exported, key=medians.__getitem__)
        quartiles = np.percentile(by_round[best] / by_round["template"], (25, 50, 75))
        row[form] = {
            "best": best,
            "ratio": medians[best] / medians["template"],
            "of least times": float(min(micros[name].min() for name in exported) / micros["template"].min()),
            "quartiles": quartiles.tolist(),
        }
        row[f"slower than {form}"] = bool(-math.log(quartiles[1]) > noise)
    return row


def _agreeing(
    models: dict[str, bytes], plan: Plan, x: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]
) -> tuple[dict[str, bytes], dict[str, float]]:
    """The models that give what is expected, and how far off the others are."""
    # elsewhere products may be computed in TF32
    tolerance = (1e-4 if plan.provider == "cpu" else 5e-3) * max(1.0, float(np.abs(expected).max()))
    right, wrong = dict[str, bytes](), dict[str, float]()
    for name, model in models.items():
        candidate = Candidate(model, x, plan.provider, plan.threads)  # which owns what numpy() only views
        error = float(np.abs(candidate.output.numpy() - expected).max())
        if error <= tolerance:
            right[name] = model
        else:
            wrong[name] = error
    assert "template" in right, f"the template is {wrong['template']:.3g} off, and {tolerance:.3g} is permitted"
    return right, wrong


def _affordable(a_turn: float, plan: Plan) -> tuple[int, int]:
    """(rounds, calls in a round) for models that together take so many seconds."""
    turns = int(plan.seconds / a_turn)
    if turns >= FEWEST_ROUNDS * CALLS_A_ROUND:
        return min(plan.rounds, turns // CALLS_A_ROUND), CALLS_A_ROUND
    return min(plan.rounds, max(FEWEST_ROUNDS, turns)), 1


def compared(plan: Plan, folder: Path) -> dict[str, Any]:
    """Every block of a plan at every size: {"rounds", "threads", "target", "batch", "geometric means": {form: see
    _summarised}, "of those that rearrange" (blocks.REARRANGED): the same, "slower beyond noise": {form: cases},
    "exports that differ": {case and export: by how much}, "table": {block: {CxHxW: see measure}}}. ``folder``: for the
    exports.
    """
    if plan.provider in NVIDIA:
        preload(onnxruntime())
    wanted = [(number, form, size) for number, size in plan.cases() for form in forms(number)]
    exports.export(wanted, plan.exporters, plan.batch, folder)
    table: dict[str, dict[str, Any]] = {}
    for seed, (number, size) in enumerate(plan.cases()):
        models = {"template": template(number, size, plan.target, plan.batch)}
        for form in forms(number):
            for kind in plan.kinds:
                models[f"{form} {kind}"] = exports.path(folder, number, size, plan.batch, form, kind).read_bytes()
        with np.load(exports.path(folder, number, size, plan.batch, "own", exports.EXPECTED)) as truth:
            row = measure(models, plan, truth["x"], truth["y"], seed)
        table.setdefault(label(number), {})["x".join(map(str, size))] = row
        _show(label(number), size, row)
    rearranged = {name: sizes for name, sizes in table.items() if matches(name, REARRANGED)}
    cells = [(name, size, row) for name, sizes in table.items() for size, row in sizes.items()]
    return {
        "rounds": plan.rounds,
        "threads": plan.threads,
        "target": plan.target,
        "batch": plan.batch,
        "geometric means": {form: _summarised(table, form) for form in FORMS},
        "of those that rearrange": {form: _summarised(rearranged, form) for form in FORMS} if rearranged else {},
        "slower beyond noise": {
            form: [f"{name} {size}" for name, size, row in cells if row[f"slower than {form}"]] for form in FORMS
        },
        "exports that differ": {
            f"{name} {size} {kind}": error for name, size, row in cells for kind, error in row["left out"].items()
        },
        "table": table,
    }


def _summarised(table: dict[str, dict[str, Any]], form: str) -> dict[str, Any]:
    """Geometric means of the ratios: over all cases; over configurations, each the mean of its sizes; and over blocks,
    each the mean of its configurations.
    """
    each = {name: geometric_mean([row[form]["ratio"] for row in sizes.values()]) for name, sizes in table.items()}
    by_block: dict[str, list[float]] = {}
    for name, value in each.items():
        by_block.setdefault(name.split()[0].split("[")[0], []).append(value)
    blocks = {name: geometric_mean(values) for name, values in by_block.items()}
    return {
        "cases": geometric_mean([row[form]["ratio"] for sizes in table.values() for row in sizes.values()]),
        "configurations": geometric_mean(list(each.values())),
        "blocks": geometric_mean(list(blocks.values())),
        "each block": blocks,
        "each configuration": each,
    }


def _show(name: str, size: Size, row: dict[str, Any]) -> None:
    micros = row["microseconds"]
    best = ", ".join(f"{row[form]['best']} {micros[row[form]['best']]:.1f} x{row[form]['ratio']:.2f}" for form in FORMS)
    flag = "".join(f"  SLOWER than {form}" for form in FORMS if row[f"slower than {form}"])
    flag += "".join(f"  {kind} is {error:.2g} off" for kind, error in row["left out"].items())
    print(f"{name:28} {size[0]:4}  {micros['template']:7.1f} us; {best}{flag}", flush=True)
