"""Tables that fit the terminal: columns go or are wrapped, and nothing is cut."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

_GAP = 2
_NARROWEST = 8
"""a column is not made narrower, even if words in it have to be broken"""


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, room: int | None, optional: Sequence[str] = ()
) -> Iterator[str]:
    """The lines of a table, the headers first; ``room`` is the width of the terminal, None for as wide as it takes.

    Where it does not fit, the columns ``optional`` go, the first of them first, and a last line says so; then the
    widest columns are wrapped between words, and in the end within words.
    """
    columns = [list(column) for column in zip(headers, *rows, strict=True)]
    gone = []
    for header in optional:
        if room is None or _total(map(_longest, columns)) <= room:
            break
        for column in [each for each in columns if each[0] == header]:
            columns.remove(column)
            gone.append(header)
    widths = _widths(columns, room)
    for cells in zip(*columns, strict=True):
        if room is None:  # as wide as it takes
            yield _line(cells, widths)
            continue
        wrapped = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
        for i in range(max(map(len, wrapped))):
            yield _line([lines[i] if i < len(lines) else "" for lines in wrapped], widths)
    if gone:
        yield f"(no room for {', '.join(gone)})"


def _line(parts: Iterable[str], widths: Iterable[int]) -> str:
    return (" " * _GAP).join(map(str.ljust, parts, widths)).rstrip()


def _widths(columns: Sequence[Sequence[str]], room: int | None) -> list[int]:
    widths = [_longest(column) for column in columns]
    if room is None:
        return widths
    words = [max((len(word) for cell in column for word in cell.split()), default=1) for column in columns]
    for least in (words, [_NARROWEST] * len(columns)):
        while _total(widths) > room:
            wide = [i for i, width in enumerate(widths) if width > least[i]]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Iterator[int] | Sequence[int] | map[int]) -> int:
    found = list(widths)
    return sum(found) + _GAP * (len(found) - 1)


def _longest(column: Sequence[str]) -> int:
    return max(map(len, column))


def _wrapped(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, max(width, 1), break_on_hyphens=False) or [""]
