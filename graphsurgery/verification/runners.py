"""The ways in which one block is run: providers, optimisation on and off, and what stands in for missing kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CannotRun, NoKernel
from ..runtime.placement import Placement, by_provider
from ..runtime.quantised_types import element_types
from ..runtime.session import Session, session
from .cases import Case
from .cutout import Cutout, numpy_dtype
from .metrics import Metrics, compare
from .report import Mode, Row, Verdict, Worst
from .rounding import rounded_after_every_node
from .tolerance import ROUNDED, TOLERANCES, Tolerance

Array = npt.NDArray[Any]

_THREADS = 1  # the thread pools of several sessions that wait for work busily would slow each other and PyTorch down


@dataclass
class Runner:
    """One way to run a block, and what it gave so far."""

    provider: str
    mode: Mode
    tolerance: Tolerance
    run: Callable[[Array], Array] | None = None
    """[N, C, H, W] -> the block's output; None where it cannot run."""
    gate_opened: bool = False
    """Whether alpha of a residual gate is 1 instead of what it is in the file."""
    weights_drawn: bool = False
    """Whether all weights are drawn at random instead of what they are in the file."""
    note: str = ""
    ready: Session | None = None
    """what runs it, if it is onnxruntime on one of its providers"""
    nodes: Sequence[tuple[str, str]] = ()
    """(name, operator) of the block's nodes, where the session keeps them as they are"""
    verdict: Verdict = Verdict.PASSED
    reason: str = ""
    found: list[tuple[str, Metrics]] = field(default_factory=list)

    def row(self) -> Row:
        """The summary of everything recorded."""
        if not self.found:
            return self._row()
        case, worst = max(self.found, key=lambda entry: entry[1].ratio)
        return replace(
            self._row(),
            comparisons=len(self.found),
            worst=Worst.of(metrics for _, metrics in self.found),
            worst_case=case,
            worst_index=worst.worst_index,
            reason=self.reason or worst.reason,
        )

    def _row(self) -> Row:
        executed = self.ready.executed if self.ready else ()
        return Row(
            provider=self.provider,
            mode=self.mode,
            gate_opened=self.gate_opened,
            weights_drawn=self.weights_drawn,
            verdict=self.verdict,
            tolerance=self.tolerance,
            reason=self.reason,
            note=self.note,
            kernels=by_provider(executed),
            placement=Placement.of(self.provider, self.nodes, executed) if executed and self.nodes else None,
        )

    def record(self, case: str, metrics: Metrics) -> None:
        """Add a comparison (with this runner's tolerance); one that did not pass fails the whole row."""
        self.found.append((case, metrics))
        if not metrics.passed:
            self.verdict = Verdict.FAILED

    def stop(self, error: NoKernel | CannotRun) -> None:
        """It cannot run, or not any more."""
        self.run = None
        self.reason = str(error)
        missing = isinstance(error, NoKernel) and not self.found
        self.verdict = Verdict.NO_KERNEL if missing else Verdict.FAILED


def runners(cutout: Cutout, dtype: str, providers: Iterable[str]) -> list[Runner]:
    """The ways to run a block whose site has this element type.

    Each provider with optimisation on and off; on the CPU a half-precision block also rounded after every node, since
    onnxruntime computes it in float32 there. If no provider has the kernels, one row more: rounded after every node
    for a half-precision block, else onnx.reference (whose sums in bfloat16 are too coarse to judge a block by).
    """
    data = cutout.model.SerializeToString()
    found = [_on_provider(cutout, data, dtype, name, optimise) for name in providers for optimise in (True, False)]
    half = dtype in ("float16", "bfloat16")
    nothing = all(each.verdict is Verdict.NO_KERNEL for each in found)
    if half and (nothing or any(each.provider == "cpu" for each in found)):
        found.append(_rounded(cutout, dtype))
    elif nothing:
        found.append(_reference(cutout, dtype))
    return found


def judge(
    runners: Iterable[Runner],
    case: Case,
    expected: Array,
    dtype: str,
    slack: float = 0.0,
    rounding: Callable[[], float] = lambda: 0.0,
) -> None:
    """Run one input everywhere and record the comparison with ``expected`` (float64).

    ``slack``: permitted on top of each runner's tolerance, in the unit of the output. ``rounding``: how far rounding
    alone can move the result, relative to it; asked for where a comparison fails (see conditioning.py).
    """
    before: tuple[Tolerance, Array, Metrics] | None = None
    for runner in runners:
        if runner.run is None:
            continue
        try:
            actual = runner.run(case.array)
        except (NoKernel, CannotRun) as error:
            runner.stop(error)
            continue
        if before is None or before[0] != runner.tolerance or not _same(before[1], actual):
            limits = replace(runner.tolerance, slack=slack)
            found = compare(actual, expected, dtype, signal=case.array, tolerance=limits)
            if not found.passed and (moved := rounding()) > limits.relative:
                wider = compare(actual, expected, dtype, signal=case.array, tolerance=limits.widened(moved))
                found = wider if wider.passed else found
            before = (runner.tolerance, actual, found)
        runner.record(case.name, before[2])


def _on_provider(cutout: Cutout, data: bytes, dtype: str, provider: str, optimise: bool) -> Runner:
    half = dtype in ("float16", "bfloat16") and provider != "cpu"
    tolerance = TOLERANCES[dtype].weighing_input() if half else TOLERANCES[dtype]
    runner = Runner(provider, Mode.OPTIMISED if optimise else Mode.AS_WRITTEN, tolerance)
    types = element_types(cutout.model)
    try:
        ready = session(data, provider, optimise=optimise, threads=_THREADS, types=types, profiled=True)
    except (NoKernel, CannotRun) as error:
        runner.stop(error)
        return runner
    runner.ready = ready
    if not optimise:
        runner.nodes = [(node.name, node.op_type) for node in cutout.model.graph.node]
    given, judged = numpy_dtype(cutout.dtype), numpy_dtype(dtype)

    def run(array: Array) -> Array:
        made: Array = ready.run({cutout.input: array.astype(given, copy=False)})[0]
        return made.astype(judged, copy=False) if made.dtype == given else made  # a wrong type stays one

    runner.run = run
    return runner


def _rounded(cutout: Cutout, dtype: str) -> Runner:
    runner = Runner("cpu", Mode.ROUNDED, TOLERANCES[dtype].weighing_input(ROUNDED))
    try:
        ready = session(
            rounded_after_every_node(cutout.model).SerializeToString(), "cpu", optimise=False, threads=_THREADS
        )
    except (NoKernel, CannotRun) as error:
        runner.stop(error)
        return runner
    half = numpy_dtype(dtype)
    runner.run = lambda array: ready.run({cutout.input: array.astype(np.float32)})[0].astype(half)
    return runner


def _reference(cutout: Cutout, dtype: str) -> Runner:
    from onnx.reference import ReferenceEvaluator

    runner = Runner("onnx.reference", Mode.REFERENCE, TOLERANCES[dtype])
    try:
        evaluator = ReferenceEvaluator(cutout.model)
    except Exception as error:  # it raises whatever its operators raise
        runner.stop(NoKernel(f"onnx.reference cannot run this: {error}"))
        return runner

    def run(array: Array) -> Array:
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                outputs: Any = evaluator.run(None, {cutout.input: array})
                return np.asarray(outputs[0])
        except Exception as error:  # as above
            raise CannotRun(f"onnx.reference cannot run this: {error}") from None

    runner.run = run
    return runner


def _same(a: Array, b: Array) -> bool:
    """Bit by bit, so that NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(np.array_equal(np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8)))
