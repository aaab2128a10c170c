"""Latency of cells: a few at a time, in turns with the model without blocks and that once more as the control.

Nothing else of this package runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..bench.whole import timer
from ..errors import CannotRun, NoKernel
from ..feature_map import Array
from ..modelfile.model import ModelFile
from ..runtime.timing import Difference, Times, in_turns

ENOUGH = 6
"""rounds: of fewer, the smallest and the largest do not enclose the median in 95 of 100 cases (2 / 2^5 > 5 / 100)"""
NOT_ENOUGH = "not enough rounds"
_MOST = 16
"""cells that share a baseline"""
_WEIGHTS, _OTHER = 3, 100 << 20
"""what a session takes: its file so many times (as given, as parsed, as packed for its kernels), and activations"""


def batches(cells: Sequence[int], size: int, memory: int) -> Iterator[Sequence[int]]:
    """Cells that are timed together, of models of so many bytes, with at most ``memory`` GB for all of them."""
    room = (memory << 30) // (_WEIGHTS * size + _OTHER) - 2  # the baseline and the control
    step = max(1, min(_MOST, room))
    for start in range(0, len(cells), step):
        yield cells[start : start + step]


def latencies(
    baseline: ModelFile,
    models: Sequence[ModelFile],
    provider: str,
    feeds: Mapping[str, Array],
    *,
    rounds: int,
    warm_up: int,
    threads: int,
) -> list[dict[str, Any] | str]:
    """For each model {"before", "after", "difference", "low", "high", "relative", "noise", "verdict"}, milliseconds of
    one inference; or why it does not run. CannotRun and NoKernel if the baseline does not.
    """
    first, control = (timer(baseline, provider, feeds, threads)[0] for _ in range(2))
    ready: list[Any] = []
    for model in models:
        try:
            ready.append(timer(model, provider, feeds, threads)[0])
        except (CannotRun, NoKernel) as error:
            ready.append(str(error))
    running = [each for each in ready if not isinstance(each, str)]
    order = np.random.default_rng(0)  # another one each round: whoever runs after a large model finds cold caches
    before, again, *taken = in_turns([first, control, *running], rounds, warm_up=warm_up, rng=order)
    left = iter(taken)
    return [each if isinstance(each, str) else _figures(before, next(left), again) for each in ready]


def _figures(before: Sequence[float], after: Sequence[float], control: Sequence[float]) -> dict[str, Any]:
    found = Difference.of(before, after, control).to_json()
    verdict = found["verdict"] if len(before) >= ENOUGH else NOT_ENOUGH
    figures = {name: found[name] for name in ("low", "high", "relative", "noise")}
    sides = {"before": Times.of(before).median, "after": Times.of(after).median, "difference": found["median"]}
    return {**sides, **figures, "verdict": verdict}
