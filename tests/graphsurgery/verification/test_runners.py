"""Runners: what becomes of one way to run a block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from graphsurgery.errors import CannotRun, NoKernel
from graphsurgery.verification import Mode, Row, Verdict, comparison
from graphsurgery.verification.cases import Case
from graphsurgery.verification.conditioning import Conditioning
from graphsurgery.verification.metrics import compare
from graphsurgery.verification.runners import Runner, compare_outputs
from graphsurgery.verification.tolerance import TOLERANCES
from graphsurgery.verification.variants import Variant

ONES = np.ones((1, 2, 3, 3), np.float32)


def runner(run: Any = lambda array: array) -> Runner:
    return Runner(Row(provider="cpu", mode=Mode.AS_WRITTEN, tolerance=TOLERANCES["float32"]), run)


@pytest.mark.parametrize(
    ("error", "compared", "verdict"),
    [
        (NoKernel("no Mod"), False, Verdict.NO_KERNEL),
        (NoKernel("no Mod"), True, Verdict.FAILED),
        (CannotRun("no Mod"), False, Verdict.FAILED),
    ],
)
def test_a_kernel_that_is_missing_after_a_comparison_is_a_failure(
    error: NoKernel | CannotRun, compared: bool, verdict: Verdict
) -> None:
    way = runner()
    if compared:
        way.record("ones", compare(ONES, ONES.astype(np.float64), "float32"))
    way.stop(error)
    assert way.output(ONES) is None
    assert (way.summary().verdict, way.summary().reason) == (verdict, "no Mod")


def test_equal_outputs_are_compared_anew_where_the_tolerance_is_another() -> None:
    strict, wide = runner(), runner()
    wide.row = replace(wide.row, tolerance=TOLERANCES["float16"])
    compare_outputs([strict, wide], Case("ones", ONES), ONES * 1.0005, "float32")
    assert [way.summary().verdict for way in (strict, wide)] == [Verdict.FAILED, Verdict.PASSED]


class Log(torch.nn.Module):
    """Not made for weights, or here inputs, below zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


@pytest.mark.parametrize("weights_drawn", [True, False])
def test_random_weights_that_a_module_is_not_made_for_are_not_compared(weights_drawn: bool) -> None:
    way = runner()
    variant = Variant(Log(), Conditioning(Log(), "float32"), [way], "float32", weights_drawn)
    variant.compare(Case("below zero", -ONES))
    assert bool(way.found) is not weights_drawn


def test_what_rounding_moves_is_permitted_in_the_model_too(
    make_simam: Any, forms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_simam(forms["constant"])
    assert not comparison.verify(model, providers=["cpu"], seeds=1).passed
    monkeypatch.setattr(Conditioning, "slack", lambda *_: 1e3)
    rows = comparison.verify(model, providers=["cpu"], seeds=1).insertions[0].rows
    assert {row.mode: row.verdict for row in rows}[Mode.IN_THE_MODEL] is Verdict.PASSED
