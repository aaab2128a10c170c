"""What `verify` found: plain data, with a form for programs (JSON) and one for people (lines of text)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import groupby
from typing import Any

from ..blocks.reference import PYTORCH, Reference
from ..errors import ParityFailed
from ..runtime.placement import Placement, shares
from .metrics import Metrics
from .tolerance import Tolerance


class Verdict(StrEnum):
    """What became of one row."""

    PASSED = "passed"
    FAILED = "failed"
    NO_KERNEL = "no kernel"
    """Nothing was compared, because the provider does not implement an operator at this element type or opset."""


class Mode(StrEnum):
    """How the block was run."""

    OPTIMISED = "optimised"
    """cut out, with all graph optimisations of onnxruntime"""
    AS_WRITTEN = "as written"
    """cut out, without any"""
    ROUNDED = "rounded after every node"
    """cut out, float32 kernels, each result rounded to the half-precision type (see stepwise.py)"""
    REFERENCE = "reference evaluator"
    """cut out, in onnx.reference, where onnxruntime lacks the kernels"""
    QUANTISED = "quantised and back"
    """the QuantizeLinear and DequantizeLinear behind the block: within their range by half a step at most"""
    IN_THE_MODEL = "in the model"
    """at its place in the running model, from the tensor in front of it to the tensor behind it"""


@dataclass(frozen=True)
class Worst:
    """The worst of each figure over all comparisons of a row. See :class:`Metrics`."""

    max_abs: float
    mean_abs: float
    p99_abs: float
    max_rel: float
    max_ulps: float
    cosine: float
    ratio: float

    @classmethod
    def of(cls, all_metrics: Iterable[Metrics | Worst]) -> Worst:
        """NaN (a cosine that could not be computed) is worse than everything."""
        found = list(all_metrics)
        names = [each.name for each in fields(cls) if each.name != "cosine"]
        largest = {name: max((getattr(metrics, name) for metrics in found), key=_badness) for name in names}
        return cls(
            **largest, cosine=min((metrics.cosine for metrics in found), key=lambda c: -2.0 if math.isnan(c) else c)
        )


@dataclass(frozen=True)
class Row:
    """All comparisons of one insertion on one provider in one mode."""

    provider: str
    """A short name as in graphsurgery.runtime.session.PROVIDERS, or onnx.reference."""
    mode: Mode
    gate_opened: bool
    """Whether the alpha of a residual gate was 1 for this, so that what is behind the gate counts."""
    verdict: Verdict
    tolerance: Tolerance
    comparisons: int = 0
    worst: Worst | None = None
    worst_case: str = ""
    """The input on which error / permitted error was largest."""
    worst_index: tuple[int, ...] = ()
    reason: str = ""
    """Why it failed, or what kernel is missing."""
    note: str = ""
    kernels: Mapping[str, int] = field(default_factory=dict)
    """Provider -> how many kernels it ran, from a profile of the first run; empty where there was none."""
    placement: Placement | None = None
    """Where each node of the block ran, from the same profile. Only for the block as written: optimisation merges nodes
    and renames them."""
    weights_drawn: bool = False
    """Whether the nodes of the file had weights drawn at random for this, on both sides (see drawn.py)."""


@dataclass(frozen=True)
class InsertionReport:
    """One inserted block."""

    id: str
    module: str
    path: str | None
    """Module path of the site; None if it was chosen by another name."""
    tensor: str
    shape: tuple[int | str | None, ...]
    dtype: str
    tolerance: Tolerance
    compared_with: Reference = PYTORCH
    rows: tuple[Row, ...] = ()
    inputs: tuple[str, ...] = ()
    """Names of the inputs that were used."""
    activation: str = ""
    """Why the activation that really arrives was not checked; "" if it was."""
    failure: str = ""
    """Why the block could not be compared at all; "" if it could."""

    @property
    def passed(self) -> bool:
        """At least one comparison was made, and none failed."""
        rows = [row for row in self.rows if row.mode is not Mode.QUANTISED]
        compared = any(row.verdict is Verdict.PASSED and row.comparisons for row in rows)
        return compared and not self.failure and all(row.verdict is not Verdict.FAILED for row in self.rows)


@dataclass(frozen=True)
class Rest:
    """Whether everything but the insertions is as it was: see graphsurgery.insertion.removal.unchanged."""

    passed: bool | None
    """None: it could not be decided (no original to compare with)."""
    sentence: str


@dataclass(frozen=True)
class Report:
    """The result of `graphsurgery.verify`."""

    model: str
    insertions: tuple[InsertionReport, ...]
    rest: Rest
    providers: tuple[str, ...]
    versions: dict[str, str] = field(default_factory=dict)
    """Package name -> version, of what computed the two sides."""

    @property
    def passed(self) -> bool:
        """Every insertion passed, and the rest of the model is not known to have changed."""
        return bool(self.insertions) and all(i.passed for i in self.insertions) and self.rest.passed is not False

    def require(self) -> Report:
        """This report. Raises ParityFailed, with the first reason, if it is one of failure."""
        if not self.passed:
            raise ParityFailed(next(self._failures()))
        return self

    def _failures(self) -> Iterator[str]:
        for insertion in self.insertions:
            if insertion.failure:
                yield f"{insertion.id}: {insertion.failure}"
            for row in insertion.rows:
                if row.verdict is Verdict.FAILED:
                    where = f"{row.provider}, {row.mode}" + (f", on {row.worst_case}" if row.worst_case else "")
                    yield f"{insertion.id} does not agree with {insertion.compared_with.what} ({where}): {row.reason}"
            if not insertion.passed:
                where = ", ".join(self.providers)
                yield f"{insertion.id} could not be compared with {insertion.compared_with.what} on {where}"
        yield self.rest.sentence if self.rest.passed is False else "there was nothing to compare"

    def to_json(self) -> dict[str, Any]:
        """A dictionary for ``json.dumps``; numbers that are infinite or not a number are null.

        - "model", "passed", "providers": [name], "versions": {package: version}
        - "unchanged": {"passed": true, false or null, "sentence"}, about the rest of the model
        - "insertions": [{"id", "module", "path", "tensor", "shape", "dtype", "passed", "tolerance": {"absolute",
          "relative"}, "compared_with": {"what", "runtime", "dtype"}, "inputs": [name], "activation", "failure",
          "rows"}]
        - each of the "rows": {"provider", "mode", "gate_opened", "weights_drawn", "verdict", "tolerance",
          "comparisons", "worst": {"max_abs", "mean_abs", "p99_abs", "max_rel", "max_ulps", "cosine", "ratio"} or null,
          "worst_case", "worst_index": [int], "reason", "note", "kernels": {provider: count}, "nodes": {"total", "on":
          {provider: count}, "fell_back": [{"node", "operator", "provider"}]} or null}

        See the fields of these classes for what they mean.
        """
        return {
            "model": self.model,
            "passed": self.passed,
            "providers": list(self.providers),
            "versions": self.versions,
            "unchanged": {"passed": self.rest.passed, "sentence": self.rest.sentence},
            "insertions": [_insertion_json(insertion) for insertion in self.insertions],
        }

    def lines(self) -> list[str]:
        """The report for people, without colours, one line per insertion and per provider."""
        lines: list[str] = []
        for insertion in self.insertions:
            lines += _insertion_lines(insertion)
        mark = {True: "passed", False: "FAILED", None: "not checked"}[self.rest.passed]
        lines.append(f"rest of the model: {mark}: {self.rest.sentence}")
        versions = ", ".join(f"{package} {version}" for package, version in self.versions.items())
        lines.append(f"{'passed' if self.passed else 'FAILED'} ({versions})")
        return lines


def _insertion_json(insertion: InsertionReport) -> dict[str, Any]:
    keys = ("id", "module", "path", "tensor")
    return {
        **{key: getattr(insertion, key) for key in keys},
        "shape": list(insertion.shape),
        "dtype": insertion.dtype,
        "passed": insertion.passed,
        "tolerance": _tolerance_json(insertion.tolerance),
        "compared_with": insertion.compared_with.to_json(),
        "inputs": list(insertion.inputs),
        "activation": insertion.activation,
        "failure": insertion.failure,
        "rows": [_row_json(row) for row in insertion.rows],
    }


def _row_json(row: Row) -> dict[str, Any]:
    worst = row.worst
    return {
        "provider": row.provider,
        "mode": str(row.mode),
        "gate_opened": row.gate_opened,
        "weights_drawn": row.weights_drawn,
        "verdict": str(row.verdict),
        "tolerance": _tolerance_json(row.tolerance),
        "comparisons": row.comparisons,
        "worst": worst and {f.name: _finite(getattr(worst, f.name)) for f in fields(worst)},
        "worst_case": row.worst_case,
        "worst_index": list(row.worst_index),
        "reason": row.reason,
        "note": row.note,
        "kernels": dict(row.kernels),
        "nodes": row.placement.to_json() if row.placement else None,
    }


def _tolerance_json(tolerance: Tolerance) -> dict[str, float]:
    return {"absolute": tolerance.absolute, "relative": tolerance.relative}


def _insertion_lines(insertion: InsertionReport) -> list[str]:
    shape = ", ".join("?" if size is None else str(size) for size in insertion.shape)
    mark = "passed" if insertion.passed else "FAILED"
    place = insertion.path or insertion.tensor
    lines = [f"{insertion.id}: {insertion.module} after {place}, [{shape}] {insertion.dtype}: {mark}"]
    if insertion.failure:
        lines.append(f"  {insertion.failure}")
    for provider, rows in groupby(insertion.rows, key=_line_of):
        first, *more = _row_lines(list(rows))
        lines += [f"  {provider}: {first}", *(f"    {text}" for text in more)]
    if any(row.worst for row in insertion.rows):
        lines.append(f"  {len(insertion.inputs)} inputs, each compared with {insertion.compared_with}")
    if insertion.activation:
        lines.append(f"  the activation that really arrives here was not checked: {insertion.activation}")
    return lines


def _line_of(row: Row) -> str:
    """Optimised and as written share a line, unless they differ in kind."""
    together = (Mode.OPTIMISED, Mode.AS_WRITTEN)
    altered = "with weights drawn at random" if row.weights_drawn else "with the gate open" if row.gate_opened else ""
    return ", ".join(part for part in (row.provider, "" if row.mode in together else row.mode, altered) if part)


def _row_lines(rows: list[Row]) -> Iterator[str]:
    compared = [row for row in rows if row.worst is not None]
    if compared and rows[0].mode is Mode.QUANTISED:
        worst = Worst.of(row.worst for row in compared if row.worst is not None)
        verdict = "FAILED" if any(row.verdict is Verdict.FAILED for row in rows) else "passed"
        yield f"{verdict}  max {worst.max_abs:.1e}, {worst.ratio:.2g} of half a step, within the range of the integers"
    elif compared:
        worst = Worst.of(row.worst for row in compared if row.worst is not None)
        failed = any(row.verdict is Verdict.FAILED for row in compared)
        count = sum(row.comparisons for row in compared)
        noun = "comparison" if count == 1 else "comparisons"
        yield f"{'FAILED' if failed else 'passed'}  {_figures(worst)} of {rows[0].tolerance}  ({count} {noun})"
    reasons: dict[str, list[Mode]] = {}
    for row in rows:
        if row.verdict is Verdict.FAILED:
            where = f"on {row.worst_case}: " if row.worst_case else ""
            reasons.setdefault(f"{where}{row.reason}", []).append(row.mode)
        elif row.verdict is Verdict.NO_KERNEL:
            reasons.setdefault(f"no kernel, nothing was compared: {row.reason}", [])
    for reason, modes in reasons.items():
        yield f"{modes[0]} only, {reason}" if len(modes) == 1 < len(rows) else reason
    yield from dict.fromkeys(row.note for row in rows if row.note)
    yield from (text for row in rows if (text := _where(row)))


def _where(row: Row) -> str:
    """Where the nodes of a row ran; nothing for the CPU, which has no other to leave them to."""
    if row.provider == "cpu":
        return ""
    if row.placement is not None:
        return str(row.placement)
    return f"optimised: {shares(row.kernels)}" if row.kernels.keys() - {row.provider} else ""


def _figures(worst: Worst) -> str:
    return (
        f"max {worst.max_abs:.1e}  mean {worst.mean_abs:.1e}  p99 {worst.p99_abs:.1e}  rel {worst.max_rel:.1e}  "
        f"ulps {worst.max_ulps:.5g}  cosine {worst.cosine:.9f}  {worst.ratio:.2g}"
    )


def _badness(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
