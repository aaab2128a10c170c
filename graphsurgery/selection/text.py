"""The text of a selector, whose pieces know where they stand in it, and the spellings that its braces stand for."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from ..errors import SelectorError

_MOST_SPELLINGS = 4096


class Text(NamedTuple):
    """A piece of a selector, which knows where each of its characters stands in the selector as it was written."""

    source: str
    text: str
    origin: tuple[int, ...]
    end: int
    """where a piece without characters stands"""

    @classmethod
    def of(cls, source: str) -> Text:
        """A whole selector."""
        return cls(source, source, tuple(range(len(source))), len(source))

    def part(self, start: int, stop: int | None = None) -> Text:
        """The characters from ``start`` to ``stop``."""
        stop = len(self.text) if stop is None else stop
        end = self.origin[stop] if stop < len(self.origin) else self.end
        return Text(self.source, self.text[start:stop], self.origin[start:stop], end)

    def joined(self, *others: Text) -> Text:
        """This piece with others behind it."""
        pieces = (self, *others)
        origin = tuple(place for piece in pieces for place in piece.origin)
        return Text(self.source, "".join(piece.text for piece in pieces), origin, pieces[-1].end)

    def strip(self) -> Text:
        """Without blanks around it."""
        start = len(self.text) - len(self.text.lstrip())
        return self.part(start, max(start, len(self.text.rstrip())))

    def split(self, separator: str) -> list[Text]:
        """The pieces between the separators."""
        found, start = [], 0
        while (stop := self.text.find(separator, start)) >= 0:
            found.append(self.part(start, stop))
            start = stop + len(separator)
        return [*found, self.part(start)]

    def error(self, sentence: str, candidates: Iterable[str] = ()) -> SelectorError:
        """The error that says this of the piece; ``candidates`` are selectors that could have been meant."""
        return SelectorError(self.marked(sentence), candidates=tuple(candidates))

    def marked(self, sentence: str) -> str:
        """The sentence, and below it the selector with this piece marked."""
        first = self.origin[0] if self.origin else self.end
        last = self.origin[-1] + 1 if self.origin else self.end
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in self.source)
        mark = "^" * max(1, _width(shown[first:last]))
        return f"{sentence}\n  {shown}\n  {' ' * _width(shown[:first])}{mark}"


def _width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def spellings(text: Text) -> list[Text]:
    """All spellings of a text with alternatives in braces. SelectorError for a brace without its partner.

    >>> [spelling.text for spelling in spellings(Text.of("/model.{4,6}/cv{1,2}"))]
    ['/model.4/cv1', '/model.4/cv2', '/model.6/cv1', '/model.6/cv2']
    """
    done, pending = list[Text](), [text]
    while pending:
        piece = pending.pop()
        start = piece.text.find("{")
        if start < 0:
            if (stray := piece.text.find("}")) >= 0:
                sentence = f"the selector {text.text!r} has a closing brace without an opening one"
                raise piece.part(stray, stray + 1).error(sentence)
            done.append(piece)
            continue
        cuts = _cuts(piece.text, start)
        if not cuts:
            sentence = f"the selector {text.text!r} has an opening brace without a closing one"
            raise piece.part(start, start + 1).error(sentence)
        before, behind = piece.part(0, start), piece.part(cuts[-1] + 1)
        pending += [before.joined(piece.part(a + 1, b), behind) for a, b in reversed(list(pairwise(cuts)))]
        if len(done) + len(pending) > _MOST_SPELLINGS:
            raise text.error(f"the braces stand for more than {_MOST_SPELLINGS:,} selectors; use a glob such as *")
    return done


def _cuts(text: str, start: int) -> list[int]:
    """Where the brace at ``start`` opens, its alternatives are divided, and it closes; nothing if it does not."""
    depth, cuts = 0, [start]
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0 or (text[place] == "," and depth == 1):
            cuts.append(place)
        if depth == 0:
            return cuts
    return []
