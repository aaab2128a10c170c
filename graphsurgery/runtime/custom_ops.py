"""Custom operators: libraries that the sessions of onnxruntime take operators from that it does not have itself."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from ..errors import RequestError, option
from ..request import Argument, Selectors, checked
from .providers import onnxruntime

UNKNOWN = "is not a registered function/op"
"""what onnxruntime says of a node whose operator it does not know"""

_WORDS = Argument(words="is the path of a library of custom operators, or a list of them")
_ENTRY = "RegisterCustomOps"
_registered: ContextVar[tuple[str, ...]] = ContextVar("registered", default=())


def libraries_of(value: object) -> tuple[str, ...]:
    """The paths that were given for ``custom_ops`` in Python. RequestError for anything else."""
    several = value if isinstance(value, list | tuple) else (value,)
    paths = tuple(os.fspath(each) if isinstance(each, os.PathLike) else each for each in several)
    found: tuple[str, ...] = checked("custom_ops", paths, Selectors, _WORDS)
    return found


@contextlib.contextmanager
def registered(libraries: Sequence[str]) -> Iterator[None]:
    """While this lasts, sessions know the operators of these libraries, beside those of the libraries around.

    RequestError for a file that is none, or that the installed onnxruntime cannot load.
    """
    found = _registered.get()
    for library in libraries:
        path = os.path.realpath(library)  # of a name without a folder, the system would look elsewhere
        if path not in found:
            _try(library, path)
            found = (*found, path)
    token = _registered.set(found)
    try:
        yield
    finally:
        _registered.reset(token)


def register(options: Any) -> None:
    """Give the options of a new session the libraries in force."""
    for path in _registered.get():
        options.register_custom_ops_library(path)


def hint() -> str:
    """What to do about an operator that onnxruntime does not know, as the end of a sentence."""
    return f"; a library of custom operators that has it is given with {option('custom_ops', 'LIBRARY')}"


def _try(library: str, path: str) -> None:
    """RequestError if a library cannot be loaded: sooner than from the first of many sessions."""
    if not library or not os.path.isfile(path):
        what = "is a directory, not a" if library and os.path.isdir(path) else "does not exist: there is no such"
        raise RequestError(f"{library or repr(library)} {what} library of custom operators", option="custom_ops")
    ort = onnxruntime()
    try:
        with _quiet():
            ort.SessionOptions().register_custom_ops_library(path)
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise RequestError(
            f"onnxruntime {ort.__version__} cannot load {library} as a library of custom operators: {_reason(error)}",
            option="custom_ops",
        ) from None


def _reason(error: Exception) -> str:
    """Why a library cannot be loaded, without what is said already."""
    text = " ".join(str(error).split())
    if _ENTRY in text:
        return f"it has no function {_ENTRY}"
    return text.rpartition(" : ")[2].rpartition(": ")[2] or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what onnxruntime writes past Python about a library for a newer one from standard error."""
    if sys.stderr is None:
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
