"""What building a model gave: times, agreement with onnxruntime, types, and what the inserted blocks became."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..feature_map import Array
from ..messages import attributes
from ..modelfile.model import ModelFile
from ..modelfile.saving import write_whole
from ..runtime.session import session
from ..runtime.timing import Difference, Times, in_turns
from .commands import PRECISIONS
from .engine import Engine, build, random_feeds, tools
from .inspector import Layer, became, types
from .support import one_of

_WARM_UP, _RUNS = 20, 10
"""Runs before, and runs in each round."""
TOLERANCE = 0.02
"""Largest error of an output over its largest magnitude that passes: TF32 and float16 stay below it, a broken fusion
does not."""


@dataclass(frozen=True)
class Agreement:
    """How far one output of an engine is from onnxruntime's."""

    output: str
    largest_error: float
    relative: float
    """the largest error over the largest magnitude of the output"""
    finite: bool

    @classmethod
    def of(cls, output: str, found: Array, expected: Array) -> Agreement:
        """Compare two arrays; other shapes agree in nothing."""
        if found.shape != expected.shape:
            return cls(output, float("inf"), float("inf"), False)
        a, b = found.astype(np.float64), expected.astype(np.float64)
        error = float(np.abs(a - b).max(initial=0.0))
        return cls(output, error, error / max(float(np.abs(b).max(initial=0.0)), 1e-30), bool(np.isfinite(a).all()))

    @property
    def agrees(self) -> bool:
        """Whether the outputs are the same as far as the types allow."""
        return self.finite and self.relative <= TOLERANCE


@dataclass
class BuildReport:
    """One build, with the baseline's times if there was one."""

    model: str
    environment: Mapping[str, str]
    agreements: Sequence[Agreement]
    layers: Sequence[Layer]
    blocks: Mapping[str, Sequence[Layer]]
    """insertion id -> the layers that its nodes became part of"""
    rounds: Sequence[float]
    baseline: Sequence[float] | None = None
    notes: Sequence[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether every output agrees with onnxruntime's."""
        return all(each.agrees for each in self.agreements)

    def to_json(self) -> dict[str, Any]:
        """Keys as in docs/tensorrt.md."""
        return {
            "model": self.model,
            "environment": dict(self.environment),
            "agrees": self.agrees,
            "outputs": [vars(each) for each in self.agreements],
            "time_ms": attributes(Times.of(self.rounds)),
            "baseline_ms": attributes(Times.of(self.baseline)) if self.baseline else None,
            "verdict": str(Difference.of(self.baseline, self.rounds)) if self.baseline else None,
            "layer_types": types(self.layers),
            "blocks": {name: [vars(layer) for layer in found] for name, found in self.blocks.items()},
            "notes": list(self.notes),
        }

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield ", ".join(f"{name} {value}" for name, value in self.environment.items())
        for each in self.agreements:
            verdict = "agrees with" if each.agrees else "does not agree with"
            yield f"{each.output} {verdict} onnxruntime: largest error {each.largest_error:.3g} ({each.relative:.2%})"
        yield f"{self.model}: {Times.of(self.rounds)}"
        if self.baseline:
            yield f"baseline: {Times.of(self.baseline)}; {Difference.of(self.baseline, self.rounds)}"
        yield "layers: " + ", ".join(f"{count} in {kind}" for kind, count in types(self.layers).items())
        for name, found in self.blocks.items():
            yield f"{name} is part of {len(found)} of them"
            yield from (
                f"  {layer.type or 'layer'} {layer.name} ({', '.join(layer.runs_in) or '?'})" for layer in found
            )
        yield from self.notes


def build_and_compare(
    path: Path,
    *,
    baseline: Path | None = None,
    precision: str | None = None,
    shapes: Sequence[str] = (),
    rounds: int = 30,
    engine: Path | None = None,
) -> BuildReport:
    """Build a model with TensorRT, time it, and compare its outputs with onnxruntime's.

    Parameters
    ----------
    path, baseline:
        The model, and another one that is run in turns with it to compare the times.
    precision:
        "fp32", "fp16", "bf16" or "int8", before TensorRT 11; None: what the types in the file ask for.
    shapes:
        Sizes of dynamic inputs, as :func:`graphsurgery.tensorrt.profiles.profiles` takes them.
    rounds:
        How many times ten runs are timed, in milliseconds a run.
    engine:
        The file that the built engine is written to.

    Returns
    -------
    BuildReport
        Times, agreement of every output, and the layers that the inserted blocks became.

    Raises
    ------
    EnvironmentLacks
        Without TensorRT, PyTorch with CUDA, or a GPU.
    CheckFailed
        If the model cannot be built.
    """
    if precision is not None:
        one_of("precision", precision, PRECISIONS)
    model = ModelFile.load(path)
    have = tools()
    built = [(each, build(have, each, precision, shapes)) for each in (path, *([baseline] if baseline else []))]
    if engine is not None:
        write_whole(engine, memoryview(built[0][1]), force=True)
    engines = [Engine(have, serialised) for _, serialised in built]
    feeds = random_feeds(model, shapes)
    for each in engines:
        each.feed(feeds)
        each.run()
    original = session(path, "cpu")
    expected = dict(zip(original.outputs, original.run(feeds), strict=True))
    results = engines[0].results()
    agreements = [Agreement.of(name, results[name], expected[name]) for name in results]
    for each in engines:
        each.run(_WARM_UP)
    taken = in_turns([partial(each.run, _RUNS) for each in engines], rounds)
    found = engines[0].layers()
    blocks = {each.id: became(found, each.nodes) for each in model.insertions()}
    notes = [] if all(layer.type for layer in found) else ["the engine names its layers only; types are not known"]
    return BuildReport(
        path.name, have.versions, agreements, found, blocks, taken[0], taken[1] if baseline else None, notes
    )
