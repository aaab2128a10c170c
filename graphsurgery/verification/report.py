"""Report: what `verify` found, with a form for programs (JSON), for people (lines of text) and for notebooks (HTML)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import partial
from itertools import groupby
from typing import Any

from ..blocks.reference import PYTORCH, Reference
from ..errors import ParityFailed, option, readable
from ..feature_map import Dimension
from ..insertion.removal import Unchanged
from ..messages import attributes, html_table, plain, shape_text
from ..runtime.placement import Placement, shares
from .connection import Connection
from .metrics import Figures
from .tolerance import Tolerance


class Verdict(str, Enum):
    """What became of one row."""

    __str__ = str.__str__

    PASSED = "passed"
    FAILED = "failed"
    NO_KERNEL = "no kernel"
    """Nothing was compared, because the provider does not implement an operator at this element type or opset."""


class Mode(str, Enum):
    """How the block was run."""

    __str__ = str.__str__

    OPTIMISED = "optimised"
    """cut out, with all graph optimisations of onnxruntime"""
    AS_WRITTEN = "as written"
    """cut out, without any"""
    ROUNDED = "rounded after every node"
    """cut out, float32 kernels, each result rounded to the half-precision type (see rounding.py)"""
    REFERENCE = "reference evaluator"
    """cut out, in onnx.reference, where onnxruntime lacks the kernels"""
    QUANTISED = "quantised and back"
    """the QuantizeLinear and DequantizeLinear after the block: within their range by half a step at most"""
    REPLACED = "what it replaced"
    """the part of the graph that stood in its place before it was rewritten, in float32"""
    IN_THE_MODEL = "in the model"
    """at its place in the running model, from the tensor before it to the tensor after it"""


class Worst(Figures):
    """The worst of each figure over all comparisons of a row."""

    @classmethod
    def of(cls, compared: Iterable[Figures]) -> Worst:
        """Over several comparisons. NaN (a cosine that could not be computed) is worse than everything."""
        found = list(compared)
        names = [each.name for each in fields(cls)]
        return cls(**{n: max((getattr(m, n) for m in found), key=partial(_badness, n)) for n in names})


@dataclass(frozen=True, kw_only=True)
class Row:
    """All comparisons of one insertion on one provider in one mode."""

    provider: str
    """A short name as in graphsurgery.runtime.session.PROVIDERS, or onnx.reference."""
    mode: Mode
    gate_opened: bool = False
    """Whether the alpha of a residual gate was 1 for this, so that what comes before the gate counts."""
    weights_drawn: bool = False
    """Whether the nodes of the file had random weights for this, on both sides (see random_weights.py)."""
    reaching: bool = False
    """Whether inputs and weights were made for it that reach bounds of the block which the usual ones do not (see
    exercise.py)."""
    verdict: Verdict = Verdict.PASSED
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

    def to_json(self) -> dict[str, Any]:
        """See :meth:`Report.to_json`."""
        return {"nodes" if name == "placement" else name: value for name, value in attributes(self).items()}


@dataclass(frozen=True)
class InsertionReport:
    """One inserted block."""

    id: str
    module: str
    path: str | None
    """Module path of the site; None if it was chosen by another name."""
    tensor: str
    shape: tuple[Dimension, ...]
    dtype: str
    tolerance: Tolerance
    connected: Connection
    """Whether it reads its site, is read by its recorded consumers, and reaches an output."""
    position: str = "after"
    """"after", "before" or "in place of" what the path names"""
    compared_with: Reference = PYTORCH
    inputs: tuple[str, ...] = ()
    """Names of the inputs that were used."""
    activation: str = ""
    """Why the activation that really arrives was not checked; "" if it was."""
    size: str = ""
    """At which smaller size the block, or the activation, was compared, and why; "" for its own."""
    failure: str = ""
    """Why the block could not be compared at all; "" if it could."""
    rows: tuple[Row, ...] = ()
    not_exercised: tuple[str, ...] = ()
    """Bounds of the block's operators that no input or weights reached: another function there would not show."""

    @property
    def passed(self) -> bool:
        """The block is connected, at least one comparison was made, and none failed."""
        rows = [row for row in self.rows if row.mode is not Mode.QUANTISED]
        compared = any(row.verdict is Verdict.PASSED and row.comparisons for row in rows)
        agrees = compared and not self.failure and all(row.verdict is not Verdict.FAILED for row in self.rows)
        return agrees and self.connected.passed

    def to_json(self) -> dict[str, Any]:
        """See :meth:`Report.to_json`."""
        site = attributes(self, "id", "module", "path", "tensor", "shape", "dtype", "passed")
        return dict(readable(site | attributes(self)))


@dataclass(frozen=True, repr=False)
class Report:
    """The result of `graphsurgery.verify`."""

    model: str
    insertions: tuple[InsertionReport, ...]
    rest: Unchanged
    providers: tuple[str, ...]
    versions: dict[str, str] = field(default_factory=dict)
    """Package name -> version, of what computed the two sides."""
    ignore_rest: bool = False
    """Whether the verdict is about the insertions alone."""

    @property
    def passed(self) -> bool:
        """Every insertion passed, and the rest of the model is not known to have changed, unless that is ignored."""
        return self._blocks_passed and (self.rest.passed is not False or self.ignore_rest)

    @property
    def _blocks_passed(self) -> bool:
        return bool(self.insertions) and all(insertion.passed for insertion in self.insertions)

    def require(self) -> Report:
        """This report. Raises ParityFailed, with the first reason, if it is one of failure."""
        if not self.passed:
            raise ParityFailed(next(self._failures()))
        return self

    def _failures(self) -> Iterator[str]:
        for insertion in self.insertions:
            if insertion.failure:
                yield f"{insertion.id}: {insertion.failure}"
            if not insertion.connected.passed:
                yield f"{insertion.id} is not connected as it was inserted: {insertion.connected.sentence}"
            for row in insertion.rows:
                if row.verdict is Verdict.FAILED:
                    where = f"{row.provider}, {row.mode}" + (f", on {row.worst_case}" if row.worst_case else "")
                    what = f"{insertion.compared_with.what} ({where})"
                    yield f"{insertion.id} does not agree with {what}: {row.reason}{_measured(row)}"
            if not insertion.passed:
                where = ", ".join(self.providers)
                yield f"{insertion.id} could not be compared with {insertion.compared_with.what} on {where}"
        if self._blocks_passed and self.rest.rewritten:
            yield (
                f"the inserted blocks are connected and agree, and {self.rest.sentence}; {option('ignore_rest', True)} "
                "leaves that out of the verdict"
            )
        yield self.rest.sentence if self.rest.passed is False else "there was nothing to compare"

    def to_json(self) -> dict[str, Any]:
        """A dictionary for ``json.dumps``; numbers that are infinite or not a number are null.

        - "model", "passed", "providers": [name], "versions": {package: version}
        - "unchanged": {"passed": true, false or null, "sentence", "ignored"}, about the rest of the model
        - "insertions": [{"id", "module", "path", "tensor", "shape", "dtype", "passed", "tolerance": {"absolute",
          "relative"}, "connected": {"passed", "sentence"}, "position", "compared_with": {"what", "runtime", "dtype"},
          "inputs": [name], "activation", "size", "failure", "rows", "not_exercised": [bound]}]
        - each of the "rows": {"provider", "mode", "gate_opened", "weights_drawn", "reaching", "verdict", "tolerance",
          "comparisons", "worst": {"max_abs", "mean_abs", "p99_abs", "max_rel", "max_ulps", "cosine", "ratio"} or null,
          "worst_case", "worst_index": [int], "reason", "note", "kernels": {provider: count}, "nodes": {"total", "on":
          {provider: count}, "fell_back": [{"node", "operator", "provider"}]} or null}

        See the fields of these classes for what they mean.
        """
        whole = attributes(self, "model", "passed", "providers", "versions")
        rest = {**attributes(self.rest, "passed", "sentence"), "ignored": self.ignore_rest}
        return {**whole, "unchanged": rest, "insertions": plain(self.insertions)}

    def __repr__(self) -> str:
        passed = sum(insertion.passed for insertion in self.insertions)
        verdict = "passed" if self.passed else "FAILED"
        return f"<Report {verdict}: {self.model}, {passed} of {len(self.insertions)} insertions passed>"

    def __str__(self) -> str:
        return str(readable("\n".join(self.lines())))

    def _repr_html_(self) -> str:
        headers = ("insertion", "block", "run", "verdict", "comparisons", "largest error", "of what is permitted")
        rows = [row for insertion in self.insertions for row in _html_rows(insertion)]
        return html_table(headers, [*rows, ("rest of the model", "", "", self.rest.sentence, "", "", "")])

    def lines(self) -> list[str]:
        """The report for people, without colours, one line per insertion and per provider."""
        lines: list[str] = []
        for insertion in self.insertions:
            lines += _insertion_lines(insertion)
        failed = "changed, which is ignored" if self.ignore_rest else "FAILED"
        mark = {True: "passed", False: failed, None: "not checked"}[self.rest.passed]
        lines.append(f"rest of the model: {mark}: {self.rest.sentence}")
        versions = ", ".join(f"{package} {version}" for package, version in self.versions.items())
        lines.append(f"{'passed' if self.passed else 'FAILED'} ({versions})")
        return lines


def _insertion_lines(insertion: InsertionReport) -> list[str]:
    mark = "passed" if insertion.passed else "FAILED"
    place = insertion.path or insertion.tensor
    lines = [
        f"{insertion.id}: {insertion.module} {insertion.position} {place}, "
        f"{shape_text(insertion.shape)} {insertion.dtype}: {mark}"
    ]
    if insertion.failure:
        lines.append(f"  {insertion.failure}")
    for provider, rows in groupby(insertion.rows, key=_line_of):
        first, *more = _row_lines(list(rows))
        lines += [f"  {provider}: {first}", *(f"    {text}" for text in more)]
    if any(row.worst for row in insertion.rows):
        lines.append(f"  {len(insertion.inputs)} inputs, each compared with {insertion.compared_with}")
    if insertion.size:
        lines.append(f"  {insertion.size}")
    mark = "passed: it" if insertion.connected.passed else "FAILED:"
    lines.append(f"  connected: {mark} {insertion.connected.sentence}")
    if insertion.activation:
        lines.append(f"  the activation that really arrives here was not checked: {insertion.activation}")
    lines += [f"  not exercised: {piece}" for piece in insertion.not_exercised]
    return lines


def _html_rows(insertion: InsertionReport) -> Iterator[tuple[object, ...]]:
    """The cells of :meth:`Report._repr_html_`."""
    whose = (insertion.id, insertion.module)
    if insertion.failure:
        yield (*whose, "", f"{Verdict.FAILED}: {insertion.failure}", "", "", "")
    if not insertion.connected.passed:
        yield (*whose, "connected", f"{Verdict.FAILED}: {insertion.connected.sentence}", "", "", "")
    for row in insertion.rows:
        verdict = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
        error = (f"{row.worst.max_abs:.1e}", f"{row.worst.ratio:.2g}") if row.worst else ("", "")
        yield (*whose, _line_of(row, unnamed=()), verdict, row.comparisons, *error)


def _line_of(row: Row, unnamed: Collection[Mode] = (Mode.OPTIMISED, Mode.AS_WRITTEN)) -> str:
    """How a row was run. Optimised and as written share a line, unless they differ in kind."""
    ways = {
        "with what reaches its bounds": row.reaching,
        "with weights drawn at random": row.weights_drawn,
        "with the gate open": row.gate_opened,
    }
    altered = next((words for words, chosen in ways.items() if chosen), "")
    return ", ".join(part for part in (row.provider, "" if row.mode in unnamed else row.mode, altered) if part)


def _row_lines(rows: list[Row]) -> Iterator[str]:
    compared = [row for row in rows if row.worst is not None]
    if compared:
        worst = Worst.of(row.worst for row in compared if row.worst is not None)
        mark = "FAILED" if any(row.verdict is Verdict.FAILED for row in compared) else "passed"
        if rows[0].mode is Mode.QUANTISED:
            yield f"{mark}  max {worst.max_abs:.1e}, {worst.ratio:.2g} of half a step, within the range of the integers"
        else:
            count = sum(row.comparisons for row in compared)
            noun = "comparison" if count == 1 else "comparisons"
            yield f"{mark}  {_figures(worst)} of {rows[0].tolerance}  ({count} {noun})"
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


def _measured(row: Row) -> str:
    """By how much a row failed, where that is a number."""
    if row.worst is None or not math.isfinite(row.worst.ratio):
        return ""
    return f", an error of {row.worst.ratio:.2g} times what is permitted ({row.tolerance})"


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


def _badness(name: str, value: float) -> float:
    if math.isnan(value):
        return math.inf
    return -value if name == "cosine" else value
