"""Text of a page: values as HTML, numbers with their units."""

from __future__ import annotations

from html import escape
from typing import Any

from ...messages import printable, shape_text

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


def html(value: object) -> str:
    """Any value as the text of an element or of a quoted attribute; None is empty."""
    return "" if value is None else escape("\n".join(map(printable, str(value).splitlines())))


def count(number: int | None) -> str:
    """A whole number with groups of three digits; "" where it is not known."""
    return "" if number is None else f"{number:,}"


def milliseconds(number: float) -> str:
    """A difference with its sign and three significant digits."""
    return f"{signed(number)} ms"


def signed(number: float) -> str:
    """Three significant digits, and the sign."""
    return f"{number:+#.3g}".rstrip(".")


def share(number: float | None) -> str:
    """A relative error as percent; very small ones as a power of ten, so that they are not taken for 0."""
    if number is None:
        return ""
    return f"{100 * number:.3g} %" if number == 0 or abs(number) >= 1e-5 else f"{number:.1e}"


def size(number: int | None) -> str:
    """Bytes in the largest unit that leaves a number above 1."""
    if number is None:
        return ""
    amount, unit = float(number), 0
    while abs(amount) >= 1024 and unit < len(_BYTES) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:,.0f} {_BYTES[0]}" if unit == 0 else f"{amount:.1f} {_BYTES[unit]}"


def activation(tensor: dict[str, Any] | None) -> str:
    """The bytes and the shape of a tensor."""
    return "" if tensor is None else f"{size(tensor['bytes'])}\n{shape_text(tensor['shape'])}"
