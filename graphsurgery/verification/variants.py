"""Variants of an inserted block: with its own weights, with its gate open, with others, and what its bounds need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ..errors import CannotRun, NoKernel
from ..feature_map import Array, numpy_dtype
from ..runtime.session import session
from ..template.residual_gate import GATE_KEY
from ..template.writer import HALVES
from ..userblocks import Trust
from ..userblocks.inserted import block_of, module_with, weights_of
from .cases import Case
from .conditioning import Conditioning
from .cutout import Cutout, with_constants
from .exercise import Exercise, Reaching
from .metrics import compare
from .random_weights import Redrawing
from .rounding import in_float32, rounded_after_every_node
from .runners import Runner, compare_outputs, merged, runners
from .tolerance import ROUNDED, TOLERANCES, Tolerance, comparison_dtype

if TYPE_CHECKING:
    import torch

    from ..modelfile.model import ModelFile
    from ..modelfile.record import Insertion


@dataclass(frozen=True)
class Variant:
    """A block with certain weights, the PyTorch module that it is compared with, and the ways to run it."""

    module: torch.nn.Module
    conditioning: Conditioning
    runners: list[Runner]
    dtype: str
    weights_drawn: bool = False
    """Then one input of each shape will do."""

    def compare(self, case: Case) -> Array:
        """Compare on one input; gives what the PyTorch module computes, in float64."""
        expected = self.expected(case.array)
        if self.weights_drawn and not np.isfinite(expected).all():
            return expected  # the module is not made for such weights: it takes their logarithm, say
        self.compare_with(expected, case)
        return expected

    def compare_with(self, expected: Array, case: Case) -> None:
        """The same where it is known what the PyTorch module computes."""
        compare_outputs(self.runners, case, expected, self.dtype, self.conditioning)

    def expected(self, array: Array) -> Array:
        """What the PyTorch module computes: [N, C, H, W] of any element type -> float64."""
        import torch

        with torch.inference_mode():
            return np.asarray(self.module(torch.from_numpy(array.astype(np.float64))).numpy())


class Variants:
    """All of one insertion, and what they have exercised of it."""

    def __init__(
        self, model: ModelFile, insertion: Insertion, cutout: Cutout, providers: Sequence[str], trust: Trust
    ) -> None:
        self._insertion, self._providers, self._trust = insertion, providers, trust
        self._dtype = comparison_dtype(insertion)
        self._weights, self._open = weights_of(insertion, model, trust), cutout
        self.every = [self._variant(cutout, self._weights)]
        if insertion.gate == "residual":  # closed, as it is at the start, the gate hides the block
            self._weights = {**self._weights, GATE_KEY: np.ones(1)}
            self._open = with_constants(cutout, {insertion.stored[GATE_KEY]["initializer"]: np.ones(())})
            self.every.append(self._variant(self._open, self._weights, gate_opened=True))
        block = block_of(insertion, trust)
        self._redrawing = Redrawing(block, insertion, cutout, model, self._weights) if block.rewritten else None
        self.exercise = Exercise(self._open.model, self._redrawing, self._dtype)
        self._watches = [(False, self.exercise.watch())]
        if self._redrawing is not None and self._redrawing.random:
            random = self._redrawing.draw()
            self.every.append(self._variant(random.cutout, random.weights, weights_drawn=True))
            self._watches.append((True, self.exercise.watch(random)))

    @property
    def own(self) -> Variant:
        """The block as it stands in the file."""
        return self.every[0]

    def compare(self, case: Case) -> Array:
        """Compare all of them on one input; gives what the PyTorch module computes with the block's own weights."""
        for drawn, watch in self._watches:
            if case.usual or not drawn:
                watch.look(case.array)
        expected, *_ = [each.compare(case) for each in self.every if case.usual or not each.weights_drawn]
        return expected

    def reach(self, usual: Array) -> tuple[list[Runner], list[str]]:
        """Compare on what reaches the pieces that are still hidden, made from an input of order one.

        The ways to run the block, with all that they gave, and the names of the inputs.
        """
        trials = _Trials(self._at)
        ways: list[Runner] = []
        names = []
        for found in self.exercise.reach(usual, trials.permitted):
            trials.compare(found)
            names.append(found.case.name)
        for variant in trials.compared:
            ways += variant.runners
        return merged(ways), names

    def _at(self, found: Reaching) -> Variant:
        if found.weights is None:
            return self._variant(self._open, self._weights, reaching=True)
        return self._variant(found.weights.cutout, found.weights.weights, reaching=True)

    def _variant(self, cutout: Cutout, weights: Mapping[str, Array], **altered: Any) -> Variant:
        """``altered``: ``gate_opened``, ``weights_drawn`` or ``reaching`` of the rows."""
        module = module_with(self._insertion, weights, self._trust)
        found = runners(cutout, self._dtype, self._providers)
        if "reaching" in altered and self._dtype == "float64":
            # An epsilon is a number in float32 where it is an attribute, and small variances show that.
            altered["tolerance"] = TOLERANCES["float32"]
        for runner in found:
            runner.row = replace(runner.row, **altered)
        return Variant(module, Conditioning(module, self._dtype), found, self._dtype, "weights_drawn" in altered)


class _Trials:
    """Inputs and weights one after the other: may a block be judged there, and does it agree?"""

    def __init__(self, variant_at: Callable[[Reaching], Variant]) -> None:
        self._variant_at = variant_at
        self._weights: object = self
        self._expected = np.empty(0)
        self.compared: list[Variant] = []

    def permitted(self, found: Reaching) -> Array | None:
        """The largest error of each element that is allowed there; None where rounding decides what comes out.

        In half precision, where a sum can overflow, that is where what the template writes agrees with its module but
        for rounding.
        """
        if found.weights is not self._weights:
            self._weights, self._variant = found.weights, self._variant_at(found)
        variant, x = self._variant, found.case.array
        self._expected = expected = variant.expected(x)
        if variant.dtype not in HALVES:
            return variant.conditioning.permitted(x, expected)
        limits = TOLERANCES[variant.dtype].weighing_input(ROUNDED)
        exact, rounded = (
            _agrees(form(found.written), x, expected, variant.dtype, limits)
            for form in (in_float32, rounded_after_every_node)
        )
        return limits.allowed(expected, x) if np.isfinite(expected).all() and (rounded or not exact) else None

    def compare(self, found: Reaching) -> None:
        """Compare where it was asked last whether that may be done."""
        if not self.compared or self.compared[-1] is not self._variant:
            self.compared.append(self._variant)
        self._variant.compare_with(self._expected, found.case)


def _agrees(block: onnx.ModelProto, x: Array, expected: Array, dtype: str, limits: Tolerance) -> bool:
    """Whether a block in float32 gives what is expected, in half precision."""
    try:
        ready = session(block.SerializeToString(), "cpu", optimise=False, threads=1)
        actual = ready.run({block.graph.input[0].name: x.astype(np.float32)})[0]
    except (NoKernel, CannotRun):
        return False
    return compare(actual.astype(numpy_dtype(dtype)), expected, dtype, signal=x, tolerance=limits).passed
