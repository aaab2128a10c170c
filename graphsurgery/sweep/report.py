"""Sweep: the result of :func:`.run.sweep`, for programs, people and notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import CheckFailed, MissingDependency, option
from ..messages import html_table
from .files import prepare, write
from .rows import SHOWN, rows, shown


class Sweep:
    """Blocks at places, each with its figures. Made by :func:`graphsurgery.sweep`."""

    def __init__(self, data: dict[str, Any], picture: str = "") -> None:
        self._data = data
        self._picture = picture

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary for each block and place, with the columns of report.csv."""
        return rows(self._data)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The rows of what could not be made or measured, each with its "reason"."""
        return [row for row in self.rows if row["state"] == "failed"]

    def best(self, count: int) -> list[dict[str, Any]]:
        """The cells that fit the budgets, the best first; as in report.json."""
        ranked = [cell for cell in self._data["cells"] if cell["rank"] is not None]
        return sorted(ranked, key=lambda cell: int(cell["rank"]))[:count]

    def to_json(self) -> dict[str, Any]:
        """A dictionary for ``json.dumps``; keys as in docs/sweep.md."""
        return self._data

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``. MissingDependency where pandas is not installed."""
        try:
            import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            raise MissingDependency("to_pandas() needs pandas; pip install pandas") from None
        return pandas.DataFrame(self.rows)

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write report.json, .csv, .md, .tex and .html to a folder, which is made if it is not there.

        Raises OutputError if the folder holds something else, or a report and not ``force``.
        """
        path = Path(folder)
        prepare(path, resume=False, force=force)
        write(self._data, path, self._picture)
        return path

    def lines(self) -> Iterator[str]:
        """What stands below the table."""
        data, count = self._data, len(self._data["cells"])
        where = data["machine"]
        yield f"{data['model']['name']}, {count} {'cell' if count == 1 else 'cells'}; drift on {data['drift_on']}"
        yield f"{where['processor']}, {where['cores']} cores, {data['settings']['rounds']} rounds"

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """The headers, and the texts of each row."""
        return SHOWN, shown(self._data)

    def __repr__(self) -> str:
        cells = self._data["cells"]
        done = sum(cell["state"] == "done" for cell in cells)
        return f"<Sweep of {self._data['model']['name']}: {done} of {len(cells)} cells measured>"

    def _repr_html_(self) -> str:
        return html_table(*self.table)


def check_fitting(sweep: Sweep) -> None:
    """CheckFailed if there are budgets, and nothing fits them."""
    cells = sweep.to_json()["cells"]
    if sweep.to_json()["budgets"] and not sweep.best(1):
        misses = next((cell["misses"][0] for cell in cells if cell["misses"]), "no cell was measured")
        raise CheckFailed(f"nothing fits every {option('budget')}: {misses}", option="budget")
