"""The table of `sweep` that grows while it runs: on a terminal by rich, elsewhere one line of progress now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import progress

if TYPE_CHECKING:
    from rich.console import Console

    from ..sweep.pace import Pace

_SECONDS = 0.5
"""from one time that the table is drawn to the next"""
_OTHER_LINES = 4
"""of the terminal: the headers, the line of progress, and where the cursor may come to stand"""
_NUMBERS = ("parameters", "nodes", "MACs", "drift")


@contextmanager
def growing() -> Iterator[None]:
    """While this lasts, whoever waits for a sweep sees what is known. The table goes when the sweep ends."""
    from ..sweep.pace import watched

    with ExitStack() as stack:
        console = _terminal()
        if console is not None:
            stack.enter_context(progress.silenced())
            table = stack.enter_context(_Table(console))
            stack.enter_context(watched(table.show))
        else:
            line = _Line()
            stack.enter_context(progress.own_words(line.words))
            stack.enter_context(watched(line.note))
        yield


def _terminal() -> Console | None:
    """Standard error, if it is a terminal in which lines can be drawn anew."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    return None if console.is_dumb_terminal else console


class _Line:
    """What the line of progress says."""

    def __init__(self) -> None:
        self._words: Callable[[], str] = lambda: "starting"

    def note(self, _report: Mapping[str, Any], pace: Pace) -> None:
        """Something is known."""
        self._words = lambda: pace.words

    def words(self) -> str:
        """How far it is."""
        return self._words()


class _Table:
    """Drawn from a thread while cells are examined; while they are timed between two rounds only, as nothing else may
    run meanwhile.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Any = None
        self._known: tuple[Mapping[str, Any], Pace] | None = None
        self._start = self._drawn = monotonic()

    def __enter__(self) -> _Table:
        self._begin(by_itself=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, report: Mapping[str, Any], pace: Pace) -> None:
        """Something is known."""
        self._known = report, pace
        if pace.is_timing and self._live.auto_refresh:
            self._live.stop()
            self._begin(by_itself=False)
        now = monotonic()
        if not self._live.auto_refresh and now - self._drawn > _SECONDS:
            self._drawn = now
            self._live.refresh()

    def _begin(self, *, by_itself: bool) -> None:
        from rich.live import Live

        self._live = Live(
            console=self._console,
            get_renderable=self._drawing,
            auto_refresh=by_itself,
            refresh_per_second=1 / _SECONDS,
            transient=True,
        )
        self._live.start(refresh=True)

    def _drawing(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        seconds = f"{monotonic() - self._start:.0f} s"
        if self._known is None:
            return Text(f"sweep: starting, {seconds}", no_wrap=True, overflow="ellipsis")
        report, pace = self._known
        table, left_out = self._rows(report)
        more = f" ({left_out} rows not shown)" if left_out else ""
        said = Text(f"sweep: {pace.words}, {seconds}{more}", no_wrap=True, overflow="ellipsis")
        return Group(table, said) if table.row_count else said

    def _rows(self, report: Mapping[str, Any]) -> tuple[Any, int]:
        """The rows up to the latest that is finished, as many as there is room for; and how many of them are not."""
        from rich.table import Table

        from ..sweep.rows import COMPACT, compact

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
        for name in COMPACT:
            table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True, overflow="ellipsis")
        cells = list(report["cells"])
        finished = [cell for cell in cells if cell["state"] != "pending"]
        timed = [number for number, cell in enumerate(finished) if cell["latency"]]
        room = max(self._console.height - _OTHER_LINES, 1)
        end = max((timed[-1] + 1) if timed else len(finished), min(room, len(finished)))
        for cell in finished[max(0, end - room) : end]:
            table.add_row(*compact(cell))
        return table, len(finished) - min(room, len(finished))
