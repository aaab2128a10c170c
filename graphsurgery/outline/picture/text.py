"""Text in pictures: how wide it is, how it is cut to fit, and how it is written in XML.

A picture does not know with which font it will be shown. Widths are those of DejaVu Sans, the widest of the usual ones,
so that what fits here fits everywhere.
"""

from __future__ import annotations

from html import escape

_WIDTHS = {
    0.30: " 'ijlIJ",
    0.36: ",.·/:;\\|f-",
    0.41: "t()[]!r",
    0.53: 'sz"*_`°?',
    0.64: "abcdeghknopquvxyEFLPSTY0123456789${}",
    0.75: "ABCHKNRUVXZ",
    0.86: "DGMOQ&w#+<=>^~×",
    1.00: "mW%@…",
}
_ADVANCE = {character: width for width, characters in _WIDTHS.items() for character in characters}
_WIDE = 1.05  # of what the table does not have: letters of other scripts
_BOLD = 1.15  # times as wide


def width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a text is at most, in pixels."""
    return sum(_ADVANCE.get(character, _WIDE) for character in text) * size * (_BOLD if bold else 1.0)


def cut(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """The beginning of a text, as much as there is room for."""
    fitting = _fitting(text, room, size, bold)
    return text if fitting == len(text) else f"{text[:fitting]}…"


def cut_front(text: str, room: float, size: float) -> str:
    """The end of a text, from a slash on if there is one: that of a path says more than its beginning."""
    fitting = _fitting(text[::-1], room, size, False)
    if fitting == len(text):
        return text
    end = text[len(text) - fitting :]
    return f"…{end[max(end.find('/'), 0) :]}"


def _fitting(text: str, room: float, size: float, bold: bool) -> int:
    """How many characters there is room for, with an ellipsis after them unless it is all."""
    room /= size * (_BOLD if bold else 1.0)
    used, fitting = 0.0, 0
    for i, character in enumerate(text):
        if used + _ADVANCE["…"] <= room:
            fitting = i
        used += _ADVANCE.get(character, _WIDE)
        if used > room:
            return fitting
    return len(text)


def written(text: str) -> str:
    """Text from a file as text of XML: without the characters that XML does not know."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    return escape(text, quote=False)
