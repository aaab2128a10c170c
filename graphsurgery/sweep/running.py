"""Running: a sweep while it runs. Its report is written, and whoever watches is told, after each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutputError, option
from ..messages import observed
from ..selection.sites import SiteFinder
from .budgets import Budget, mark
from .figures import examine
from .files import write
from .grid import Cell
from .latency import batches, latencies
from .pace import Pace, Work, tell
from .setting import Setting, ready
from .workers import each_of

if TYPE_CHECKING:
    from ..feature_map import Array


@dataclass(frozen=True)
class Timing:
    """How cells are timed; ``memory``: GB for the models that are timed together."""

    finder: SiteFinder
    """in the model without blocks"""
    feeds: Mapping[str, Array]
    rounds: int
    warm_up: int
    threads: int
    memory: int

    def batches(self, waiting: Sequence[int]) -> list[Sequence[int]]:
        """Cells that are timed together."""
        return list(batches(waiting, self.finder.model.size, self.memory))

    def runs(self, waiting: Sequence[int]) -> int:
        """How many runs of models it takes to time these cells on one provider."""
        return sum(self.runs_of(len(each)) for each in self.batches(waiting))

    def runs_of(self, cells: int) -> int:
        """The same of so many cells in one batch."""
        return (cells + 2) * (self.rounds + self.warm_up)

    def latencies(self, cells: Sequence[Cell], provider: str) -> list[dict[str, Any] | str]:
        """The figures of the latency of each, or why it does not run."""
        made = [cell.put_in(self.finder)[0] for cell in cells]
        how = {"rounds": self.rounds, "warm_up": self.warm_up, "threads": self.threads}
        return latencies(self.finder.model, made, provider, self.feeds, **how)


@dataclass
class Running:
    """A sweep while it runs."""

    report: dict[str, Any]
    cells: Sequence[Cell]
    budgets: Sequence[Budget]
    folder: Path | None
    picture: str
    timing: Timing
    pace: Pace = field(init=False)
    _written: bool = False

    def __post_init__(self) -> None:
        self.pace = Pace(len(self.cells))

    @property
    def _rows(self) -> list[dict[str, Any]]:
        return list(self.report["cells"])

    @property
    def _providers(self) -> list[str]:
        return list(self.report["settings"]["providers"])

    def take_over(self, earlier: Mapping[str, Any] | None) -> None:
        """Keep what was measured of the same cells before; those that failed are tried again."""
        known = {cell["key"]: cell for cell in earlier["cells"]} if earlier else {}
        for row in self._rows:
            if row["key"] in known and known[row["key"]]["state"] in ("untimed", "done"):
                row.update(known[row["key"]])
        self._write()

    def examine(self, setting: Setting, jobs: int, one_run: float) -> None:
        """Everything but latency, ``jobs`` cells at a time. ``one_run``: the seconds of one run of the model."""
        waiting = [number for number, row in enumerate(self._rows) if row["state"] == "pending"]
        self.pace.examining, self.pace.timing = Work(len(waiting)), Work(guess=one_run)
        self.pace.examining.begin()
        self._tell()
        found = each_of(partial(examine, setting=setting), [self.cells[number] for number in waiting], jobs)
        for number, figures in zip(waiting, found, strict=True):
            self._rows[number].update(figures)
            self.pace.examining.advance()
            self._write()
            self._tell()
        ready.cache_clear()

    def time(self, provider: str) -> None:
        """The latency on one provider of all cells that have none yet."""
        self.pace.is_timing = True
        for together in self.timing.batches(self._untimed(provider)):
            self.pace.timing.begin()
            self._tell()
            with observed(partial(self._round, len(together) + 2)):
                found = self.timing.latencies([self.cells[number] for number in together], provider)
            self.pace.timing.advance(len(together) + 2)
            for number, figures in zip(together, found, strict=True):
                self._timed(self._rows[number], provider, figures)
            self._write()
            self._tell()

    def end(self) -> None:
        """Nothing more comes."""
        self.report["complete"] = True
        self._write()

    def _untimed(self, provider: str, *states: str) -> list[int]:
        wanted = ("untimed", *states)
        rows = enumerate(self._rows)
        return [number for number, row in rows if row["state"] in wanted and provider not in row["latency"]]

    def _timed(self, row: dict[str, Any], provider: str, figures: dict[str, Any] | str) -> None:
        if isinstance(figures, str):
            row.update(state="failed", reason=f"it does not run: {figures}")
            return
        row["latency"] = {**row["latency"], provider: figures}
        if all(each in row["latency"] for each in self._providers):
            row["state"] = "done"

    def _round(self, models: int, done: int, _total: int, noun: str) -> None:
        """Between two rounds of timing."""
        if noun == "rounds" and done:
            self.pace.timing.advance(models)
            tell(self.report, self.pace)

    def _tell(self) -> None:
        left = sum(self.timing.runs(self._untimed(each, "pending")) for each in self._providers)
        self.pace.timing.total = self.pace.timing.done + left
        self.pace.timed = sum(row["state"] == "done" for row in self._rows)
        tell(self.report, self.pace)

    def _write(self) -> None:
        mark(self._rows, self.budgets)
        if self.folder is None:
            return
        try:
            write(self.report, self.folder, self.picture)
        except OutputError as error:
            if not self._written:
                raise
            kept = f"what was measured before is kept there, and {option('resume', True)} goes on with it"
            raise OutputError(f"{error.message}; {kept}") from None
        self._written = True
