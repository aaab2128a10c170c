"""Selectors: text that names places in a model, read into small typed pieces. See docs/selectors.md for the grammar.

tensor:NAME        the tensor of that name; node:NAME what a node puts out; output:NAME an output of the model
/model.{4,6,8}     a module path, with braces for alternatives and globs: * ? [..] within a step, ** over steps
C2f[-1].m.*        blocks of a type: all, by index or slice; inner parts of them by name
role:p5            tensors by their role in the detector; role:p5@rgb those of one image or module only
op:Conv[17]        nodes by operator
model.8//C3k[0]    blocks of a type, or nodes of an operator, inside a module or a block
a, b               several of these; a NAME takes the rest of the text

resolver.py finds what they point at.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeVar

from ..errors import SelectorError
from ..graph.module_paths import join
from .text import Text, spellings

Item = TypeVar("Item")

_NAMED = ("tensor", "node", "output")
_WORD = re.compile(r"[A-Za-z_]\w*")
_INDEX = re.compile(r"-?\d{1,9}")
_SLICE = re.compile(r"(-?\d{1,9})?\s*:\s*(-?\d{1,9})?(?:\s*:\s*(-?\d{1,9})?)?")


# ---------------------------------------------------------------------- what a selector is made of


class Named(NamedTuple):
    """``tensor:NAME``, ``node:NAME`` or ``output:NAME``."""

    kind: str
    name: Text


class Role(NamedTuple):
    """``role:NAME``, where the name may be a glob, with or without ``@WHOSE`` behind it."""

    name: Text
    whose: Text | None = None
    """an image or module that the tensors are computed from or in"""


class Subscript(NamedTuple):
    """``[3]``, ``[-1]``, ``[0:2]`` or ``[*]`` behind a type or an operator."""

    written: Text
    chosen: int | slice

    def pick(self, items: list[Item]) -> list[Item]:
        """Those of the items that it names; none where an index is out of range."""
        if isinstance(self.chosen, slice):
            return items[self.chosen]
        return [items[self.chosen]] if -len(items) <= self.chosen < len(items) else []


class Operator(NamedTuple):
    """``op:TYPE`` with or without an index."""

    type: Text
    subscript: Subscript | None


class Block(NamedTuple):
    """A type of block, with or without an index, and the steps to an inner part."""

    type: Text
    subscript: Subscript | None
    steps: tuple[Text, ...]


class Path(NamedTuple):
    """A module path."""

    written: Text
    steps: tuple[str, ...]


class Word(NamedTuple):
    """What can be read as a module path and, perhaps, as a type of block: the model decides."""

    path: Path
    block: Block | None
    problem: SelectorError | None = None
    """what is wrong with it if it is a type"""


class Inside(NamedTuple):
    """``SCOPE//TYPE``: blocks or nodes inside of what the scope names; without a scope, anywhere."""

    scope: Word | Operator | Inside | None
    what: Block | Operator


Selector = Named | Role | Operator | Word | Inside


# ---------------------------------------------------------------------- reading


def parse(source: str) -> list[Selector]:
    """What a selector names, each alternative and each spelling by itself. SelectorError for what cannot be read."""
    if not source.strip():
        raise SelectorError("the selector is empty; give a module path such as /model.8")
    found: list[Selector] = []
    rest = Text.of(source)
    while True:
        rest = rest.part(len(rest.text) - len(rest.text.lstrip()))
        if named := _named(rest):
            return [*found, named]
        stop = _comma(rest.text)
        element = rest.part(0, stop).strip()
        if not element.text:
            raise element.error("there is a comma with no selector beside it")
        found += [_parsed(spelling.strip()) for spelling in spellings(element)]
        if stop == len(rest.text):
            return found
        rest = rest.part(stop + 1)


def _comma(text: str) -> int:
    """Where the first comma outside of braces and brackets is; the length of the text if there is none."""
    depth = place = 0
    while place < len(text):
        character = text[place]
        if character == "," and depth <= 0:
            return place
        if character == "[" and (close := text.find("]", place + 1)) > 0:
            place = close
        depth += {"{": 1, "}": -1}.get(character, 0)
        place += 1
    return len(text)


def _named(text: Text) -> Named | None:
    kind, colon, _ = text.text.partition(":")
    return Named(kind, text.part(len(kind) + 1)) if colon and kind in _NAMED else None


def _parsed(text: Text) -> Selector:
    if named := _named(text):
        return named
    if text.text.startswith("role:"):
        name = text.part(len("role:")).strip()
        if not name.text:
            raise text.error("role: needs the name of a role behind it, such as role:p5")
        name, *whose = (piece.strip() for piece in name.split("@"))
        if not name.text or len(whose) > 1 or not all(piece.text for piece in whose):
            raise text.error("behind @ comes the image or the module whose role is meant, such as role:p3@images")
        return Role(name, *whose)
    first, *inner = text.split("//")
    found: Word | Operator | Inside | None = None
    if first.text or not inner:
        found = _operator(first) if first.text.startswith("op:") else _word(first)
    for segment in inner:
        found = _typed(segment, text, found)
    assert found is not None
    return found


def _typed(text: Text, whole: Text, scope: Word | Operator | Inside | None) -> Inside:
    """The type or operator behind a //."""
    text = text.strip()
    if not text.text:
        raise whole.error(f"the selector {whole.text!r} has an empty step; write a path such as /model.8/cv2")
    if text.text.startswith("op:"):
        return Inside(scope, _operator(text))
    block, problem = _block(text)
    if problem:
        raise problem
    if block is None:
        raise text.error("behind // stands a type of block or op:TYPE, such as model.8//Bottleneck[0].cv2")
    return Inside(scope, block)


def _word(text: Text) -> Word:
    block, problem = _block(text)
    steps = join(text.text.split("/")).split(".")
    if not all(steps):
        if problem and "[" in text.text:
            raise problem
        twice = text.text.find("..")
        wrong = text.part(twice, twice + 2) if twice >= 0 else text
        raise wrong.error(f"the selector {text.text!r} has an empty step; write a path such as /model.8/cv2")
    return Word(Path(text, tuple(steps)), block, problem)


def _operator(text: Text) -> Operator:
    body = text.part(len("op:"))
    bracket = body.text.find("[")
    name = body.part(0, bracket if bracket >= 0 else None).strip()
    if not name.text:
        raise text.error("op: needs an operator behind it, such as op:Conv[17]")
    return Operator(name, _subscript(body.part(bracket)) if bracket >= 0 else None)


def _block(text: Text) -> tuple[Block | None, SelectorError | None]:
    """The text as a type with index and inner part; or None, and what is wrong where it looks like one."""
    match = _WORD.match(text.text)
    if match is None or text.text[match.end() : match.end() + 1] not in ("", "[", ".", "/"):
        return None, None
    name, rest = text.part(0, match.end()), text.part(match.end())
    try:
        subscript = None
        if rest.text.startswith("["):
            close = rest.text.find("]")
            subscript = _subscript(rest.part(0, close + 1 if close > 0 else None))
            rest = rest.part(close + 1)
        return Block(name, subscript, _steps(rest)), None
    except SelectorError as problem:
        return Block(name, None, ()), problem


def _steps(rest: Text) -> tuple[Text, ...]:
    if not rest.text:
        return ()
    if rest.text[0] not in "./":
        raise rest.error("behind an index comes a point and the name of an inner part, such as C2f[3].cv2")
    steps = [step for run in rest.part(1).split(".") for step in run.split("/")]
    if not all(step.text for step in steps):
        raise rest.error("the name of an inner part is missing; write C2f[3].cv2")
    return tuple(steps)


def _subscript(text: Text) -> Subscript:
    """``[...]``, with nothing behind it."""
    inner = text.text[1:-1].strip()
    if not text.text.endswith("]"):
        raise text.error("the index has no closing bracket; write [3], [-1], [0:2] or [*]")
    if inner == "*":
        return Subscript(text, slice(None))
    if _INDEX.fullmatch(inner):
        return Subscript(text, int(inner))
    if (match := _SLICE.fullmatch(inner)) and match[3] != "0":
        return Subscript(text, slice(*(int(bound) if bound else None for bound in match.groups())))
    raise text.error(f"{text.text} is no index; write [3], [-1], [0:2] or [*]")
