"""Look at a pickle before it is loaded: what it names, and whether loading it could cost more than its size.

A pickle of a hundred bytes can hang the interpreter: tuples of shared tuples, as a key of a mapping, are hashed one by
one, and a memo that is numbered from four billion on is allocated. Nothing is built here; the operations are counted.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..errors import WeightsError
from ..modelfile import limits

_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
"""operations whose result is hashed through what it is made of; lists and mappings have no hash, others their own"""
_CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX"}
_HASHING = {"SETITEM", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET"}
_STORE = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_FETCH = {"GET", "BINGET", "LONG_BINGET"}
_TEXT = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_Item = tuple[int, str]
"""how many values are hashed with a value, and its text if it is one, or the name of a global"""


def scan(stream: BinaryIO) -> set[str]:
    """The globals that the next pickle of a stream names, as ``module.name``.

    WeightsError for one that costs more to load than it is long; ValueError for what is no pickle.
    """
    try:
        return set(_globals(stream))
    except (IndexError, KeyError) as error:
        raise ValueError("not a pickle") from error


def _globals(stream: BinaryIO) -> Iterator[str]:
    stack: list[_Item | None] = []  # None: a mark
    memo: dict[int, _Item] = {}
    hashed = 0
    for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        name = operation.name
        if name in _STORE:
            place = len(memo) if argument is None else int(argument)
            if place > count:
                raise WeightsError("its pickle has numbers that no pickle has")
            memo[place] = stack[-1] or (1, "")
        elif name in _FETCH:
            stack.append(memo[int(str(argument))])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            taken = _taken(stack, operation)
            text = str(argument) if name in _TEXT else ""
            if name in ("GLOBAL", "INST"):
                text = str(argument).replace(" ", ".")
            elif name == "STACK_GLOBAL":
                text = ".".join(text for _, text in taken)
            if name in ("GLOBAL", "INST", "STACK_GLOBAL"):
                yield text
            size = sum(size for size, _ in taken)
            hashed += size if name in _HASHING else 0
            if hashed > limits.HASHED_VALUES:
                raise WeightsError("its pickle has tuples in tuples that stand for too many values")
            through = name in _TUPLES or (name in _CALLS and taken[0][1] == "torch.Size")
            size = min(1 + size, limits.HASHED_VALUES) if through else 1
            for kind in operation.stack_after:
                stack.append(None if kind is pickletools.markobject else (size, text))


def _taken(stack: list[_Item | None], operation: Any) -> list[_Item]:
    """Take from the stack what an operation works on."""
    taken: list[_Item] = []
    wanted = list(operation.stack_before)
    if pickletools.markobject in wanted:
        while (item := stack.pop()) is not None:
            taken.append(item)
        wanted = wanted[: wanted.index(pickletools.markobject)]
    for _ in wanted:
        item = stack.pop()
        taken.append(item or (1, ""))
    return taken[::-1]
