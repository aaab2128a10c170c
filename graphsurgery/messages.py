"""Parts of messages and reports: printable text, short lists, shapes, HTML tables, plain data, the nearest names."""

from __future__ import annotations

import heapq
import math
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .feature_map import Dimension

Item = TypeVar("Item")
_MOST = 1000
_LONGEST = 500
"""characters of a name that others are compared with; the time grows with the square"""
_DIGITS = 40
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
_observer: ContextVar[Callable[[int, int, str], None] | None] = ContextVar("observer", default=None)


def closest(name: str, names: Iterable[str], *, count: int = 4, cutoff: float = 0.5) -> list[str]:
    """The names most like this one, best first. Of very many, only those that begin or end alike are compared."""
    if len(name) > _LONGEST:
        return []
    pool: Collection[str] = dict.fromkeys(other for other in names if len(other) <= _LONGEST)
    if len(pool) > _MOST:
        pool = heapq.nlargest(_MOST, pool, key=lambda other: _ends_alike(name, other))
    from difflib import get_close_matches  # costs milliseconds, for errors only

    return get_close_matches(name, pool, n=count, cutoff=cutoff) if count else []


def nearest_titles(asked: str, titles: Mapping[str, str]) -> list[str]:
    """The names whose name, title or initials are most like what was asked for, none much less than the best.

    ``titles`` is name -> title, such as ``"coordatt": "Coordinate Attention"``, which "ca" and "CoordinateAttention"
    find as well; a remark in parentheses may be another name.
    """
    wanted = _plain(asked)
    alike = {name: max(_alike(wanted, word) for word in _words(name, title)) for name, title in titles.items()}
    least = max(0.6, max(alike.values(), default=0) - 0.1)
    near = [name for name, ratio in alike.items() if ratio >= least]
    return sorted(near, key=lambda name: -alike[name])[:3]


def _words(name: str, title: str) -> Iterator[str]:
    yield _plain(name)
    for text in re.split(r"[()]", title):
        yield _plain(text)
    yield "".join(word[0] for word in re.findall(r"[A-Za-z]+", title.partition("(")[0])).lower()


def _plain(text: str) -> str:
    """Lower case, letters and digits only, without the words that every block might bear."""
    short = re.sub(r"[^a-z0-9]", "", text.lower())
    return re.sub(r"(attention|module|block|layer|net)+$", "", short) or short


def _alike(first: str, second: str) -> float:
    from difflib import SequenceMatcher

    return SequenceMatcher(None, first, second).ratio()


def _ends_alike(first: str, second: str) -> int:
    """How many characters of the two are the same from the beginning and from the end."""
    return _begin_alike(first, second) + _begin_alike(first[::-1], second[::-1])


def _begin_alike(first: str, second: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)


def listed(names: Collection[str], most: int = 6, last: str = ",") -> str:
    """The first few, and how many more there are; ``last`` stands between the last two of a list shown whole."""
    shown = [printable(name) for name in islice(names, most)]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return f"{last} ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def percent(share: float) -> str:
    """A share with two digits, where it is not too small for them: ``0.42%``, ``5.2%``, ``104%``."""
    if 0 < share < 1e-4:
        return "less than 0.01%"
    return f"{100 * share:,.0f}%" if share >= 0.1 else f"{100 * share:.2g}%"


def megabytes(number: int) -> str:
    """Bytes in words: ``0.64 MB``, ``164 MB``."""
    amount = number / 1e6
    return f"{amount:,.0f} MB" if amount >= 10 else f"{amount:.2g} MB"


def shape_text(shape: Iterable[Dimension]) -> str:
    """``[1, 256, 20, 20]``, with ? for a size that is not known."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


class _Brief(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, 200, 200
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 6

    def repr_int(self, number: int, level: int) -> str:
        digits = int(number.bit_length() * math.log10(2)) + 1  # Python writes out none of more than 4,300
        return repr(number) if digits <= _DIGITS else f"a whole number of about {digits} digits"


def brief(value: object) -> str:
    """A value as Python writes it, for an error: of what is long, deep or has many digits, the beginning."""
    return _Brief().repr(value)


def as_text(value: object) -> str:
    """A field of a model as text: protobuf hands over a string that is not UTF-8 as bytes, which are spelled out."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def printable(text: str) -> str:
    """Fit for a terminal and for one line: control characters are spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(error: BaseException) -> str:
    """The message of an error in one line; "" where even that fails."""
    try:
        return " ".join(str(error).split())
    except Exception:  # a __str__ of other people's
        return ""


def html_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as HTML for a notebook; every cell is escaped.

    Parameters
    ----------
    headers:
        The titles of the columns.
    rows:
        The cells of each row, as many as there are headers; None is an empty cell.

    Returns
    -------
    str
        One ``<table>`` element.

    Examples
    --------
    >>> html_table(["a"], [["<1>"]])
    '<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>&lt;1&gt;</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{_html(title)}</th>" for title in headers)
    body = "".join(f"<tr>{''.join(f'<td>{_html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html(value: object) -> str:
    return "" if value is None else printable(str(value)).translate(_ESCAPES)


def attributes(thing: Any, *names: str) -> dict[str, Any]:
    """Attributes as plain data for ``json.dumps``, in that order; without names, all the fields of a dataclass."""
    return {name: plain(getattr(thing, name)) for name in names or [each.name for each in fields(thing)]}


def plain(value: Any) -> Any:
    """A value as JSON has it: a class by its name, and None for a number that is infinite or not a number."""
    if isinstance(value, type):
        return value.__name__
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return attributes(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return dict(value) if isinstance(value, Mapping) else value


def tracked(items: Collection[Item], noun: str) -> Iterator[Item]:
    """The items one by one, while whoever observes is told how many of them are done (``noun``: of what)."""
    tell = _observer.get()
    for done, item in enumerate(items):
        if tell is not None:
            tell(done, len(items), noun)
        yield item


@contextmanager
def observed(tell: Callable[[int, int, str], None]) -> Iterator[None]:
    """Call ``tell(done, total, noun)`` for every step of what is :func:`tracked` in the body."""
    token = _observer.set(tell)
    try:
        yield
    finally:
        _observer.reset(token)
