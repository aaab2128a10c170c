"""Runners: the ways in which one block is run (providers, optimisation, rounding) and what stands in for kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator

from ..errors import CannotRun, NoKernel
from ..feature_map import Array, numpy_dtype
from ..runtime.placement import Placement, by_provider
from ..runtime.quantised_types import element_types
from ..runtime.session import Session, session
from ..template.writer import HALVES
from .cases import Case
from .conditioning import Conditioning
from .cutout import Cutout
from .metrics import Metrics, compare
from .report import Mode, Row, Verdict, Worst
from .rounding import rounded_after_every_node
from .tolerance import ROUNDED, TOLERANCES, Tolerance

_THREADS = 1  # the thread pools of several sessions that wait for work busily would slow each other and PyTorch down


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread only, as the sessions do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Runner:
    """One way to run a block, and what it gave so far."""

    row: Row
    """which way it is, and the verdict so far"""
    run: Callable[[Array], Array] | None = None
    """[N, C, H, W] -> the block's output; None where it cannot run."""
    session: Session | None = None
    """what runs it, if it is onnxruntime on one of its providers"""
    nodes: Sequence[tuple[str, str]] = ()
    """(name, operator) of the block's nodes, where the session keeps them as they are"""
    found: list[tuple[str, Metrics]] = field(default_factory=list)
    """(case, comparison)"""

    def output(self, array: Array) -> Array | None:
        """What the block gives for an input; None where it cannot run, or not any more."""
        if self.run is not None:
            with self.stopping():
                return self.run(array)
        return None

    def record(self, case: str, metrics: Metrics) -> None:
        """Add a comparison (with this runner's tolerance); one that did not pass fails the whole row."""
        self.found.append((case, metrics))
        if not metrics.passed:
            self.row = replace(self.row, verdict=Verdict.FAILED)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Stop this runner where onnxruntime fails inside."""
        try:
            yield
        except (NoKernel, CannotRun) as error:
            self.stop(error)

    def stop(self, error: NoKernel | CannotRun) -> None:
        """It cannot run, or not any more."""
        self.run = None
        missing = isinstance(error, NoKernel) and not self.found
        self.row = replace(self.row, verdict=Verdict.NO_KERNEL if missing else Verdict.FAILED, reason=error.message)

    def summary(self) -> Row:
        """The row of everything recorded."""
        executed = self.session.executed if self.session else ()
        placement = Placement.of(self.row.provider, self.nodes, executed) if executed and self.nodes else None
        row = replace(self.row, kernels=by_provider(executed), placement=placement)
        if not self.found:
            return row
        case, worst = max(self.found, key=lambda entry: entry[1].ratio)
        return replace(
            row,
            comparisons=len(self.found),
            worst=Worst.of(metrics for _, metrics in self.found),
            worst_case=case,
            worst_index=worst.worst_index,
            reason=row.reason or worst.reason,
        )


def runners(cutout: Cutout, dtype: str, providers: Iterable[str]) -> list[Runner]:
    """The ways to run a block whose site has this element type.

    Each provider with optimisation on and off; on the CPU a half-precision block also rounded after every node, since
    onnxruntime computes it in float32 there. If no provider has the kernels, one row more: rounded after every node
    for a half-precision block, else onnx.reference (whose sums in bfloat16 are too coarse to compare a block with).
    """
    data = cutout.model.SerializeToString()
    found = [_on_provider(cutout, data, dtype, name, optimise) for name in providers for optimise in (True, False)]
    nothing = all(each.row.verdict is Verdict.NO_KERNEL for each in found)
    if dtype in HALVES and (nothing or any(each.row.provider == "cpu" for each in found)):
        found.append(_rounded(cutout, dtype))
    elif nothing:
        found.append(_reference(cutout, dtype))
    return found


def merged(runners: Iterable[Runner]) -> list[Runner]:
    """One for each way to run a block, with what all of that way gave."""
    ways: dict[tuple[str, Mode], Runner] = {}
    for runner in runners:
        first = ways.setdefault((runner.row.provider, runner.row.mode), runner)
        if first is not runner:
            first.found += runner.found
            if runner.row.verdict is Verdict.FAILED:
                first.row = runner.row
    return list(ways.values())


def compare_outputs(
    runners: Iterable[Runner], case: Case, expected: Array, dtype: str, conditioning: Conditioning | None = None
) -> None:
    """Run one input everywhere and record the comparison with ``expected`` (float64), as ``Comparing`` makes it."""
    comparing = Comparing(case.array, expected, dtype, conditioning)
    before: tuple[Tolerance, Array, Metrics] | None = None
    for runner in runners:
        actual = runner.output(case.array)
        if actual is None:
            continue
        tolerance = runner.row.tolerance
        if before is None or before[0] != tolerance or not _same_bits(before[1], actual):
            before = (tolerance, actual, comparing.compare(actual, tolerance))
        runner.record(case.name, before[2])


@dataclass
class Comparing:
    """Comparisons of outputs for one input ``x`` with what the PyTorch module gives for it.

    ``conditioning``: of the module, for what is permitted on top of a tolerance; how far rounding alone can move the
    result is measured where a comparison fails.
    """

    x: Array
    expected: Array
    dtype: str
    conditioning: Conditioning | None = None

    def compare(self, actual: Array, tolerance: Tolerance) -> Metrics:
        """One comparison."""
        limits = replace(tolerance, slack=self._slack)
        found = compare(actual, self.expected, self.dtype, signal=self.x, tolerance=limits)
        if found.passed:
            return found
        (rounding, smallest), moved = self._rounding
        if moved > limits.relative:
            limits = limits.widened(moved)
        limits = replace(limits, rounding=rounding, smallest=smallest)
        wider = compare(actual, self.expected, self.dtype, signal=self.x, tolerance=limits)
        return wider if wider.passed else found

    @cached_property
    def _slack(self) -> float:
        return self.conditioning.slack(self.x, self.expected) if self.conditioning else 0.0

    @cached_property
    def _rounding(self) -> tuple[tuple[float, float], float]:
        """In float32, and in half precision."""
        if self.conditioning is None:
            return (0.0, 0.0), 0.0
        return self.conditioning.rounding(self.x, self.expected), self.conditioning.relative(self.x, self.expected)


def _on_provider(cutout: Cutout, data: bytes, dtype: str, provider: str, optimise: bool) -> Runner:
    computed_in_half = dtype in HALVES and provider != "cpu"
    tolerance = TOLERANCES[dtype].weighing_input() if computed_in_half else TOLERANCES[dtype]
    mode = Mode.OPTIMISED if optimise else Mode.AS_WRITTEN
    runner = Runner(Row(provider=provider, mode=mode, tolerance=tolerance))
    if not optimise:
        runner.nodes = [(node.name, node.op_type) for node in cutout.model.graph.node]
    given, wanted = numpy_dtype(cutout.dtype), numpy_dtype(dtype)
    with runner.stopping():
        types = element_types(cutout.model)
        ready = session(data, provider, optimise=optimise, threads=_THREADS, types=types, profiled=True, frugal=True)

        def run(array: Array) -> Array:
            output: Array = ready.run({cutout.input: array.astype(given, copy=False)})[0]
            return output.astype(wanted, copy=False) if output.dtype == given else output  # a wrong type stays one

        runner.session, runner.run = ready, run
    return runner


def _rounded(cutout: Cutout, dtype: str) -> Runner:
    runner = Runner(Row(provider="cpu", mode=Mode.ROUNDED, tolerance=TOLERANCES[dtype].weighing_input(ROUNDED)))
    half = numpy_dtype(dtype)
    with runner.stopping():
        rounded = rounded_after_every_node(cutout.model).SerializeToString()
        ready = session(rounded, "cpu", optimise=False, threads=_THREADS, frugal=True)
        runner.run = lambda array: ready.run({cutout.input: array.astype(np.float32)})[0].astype(half)
    return runner


def _reference(cutout: Cutout, dtype: str) -> Runner:
    runner = Runner(Row(provider="onnx.reference", mode=Mode.REFERENCE, tolerance=TOLERANCES[dtype]))
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


def _same_bits(a: Array, b: Array) -> bool:
    """Whether the two agree bit by bit, so that NaN equals NaN."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
