"""Every error that graphsurgery raises on purpose, and its warning.

Each message is one sentence in the user's terms; each class carries the exit code of the command line.

    GraphSurgeryError
    ├── RequestError          exit 2: the request cannot be carried out as it was put
    │   ├── ModelError            the file is not an ONNX model that can be edited
    │   │   └── ExternalDataError     its external data is missing, or lies outside the model's folder
    │   ├── SelectorError         a selector matches nothing, too much, or cannot be read
    │   ├── SiteError             a tensor was found, but no block can be put there
    │   ├── BlockError            unknown block, variant or hyper-parameter, or one that cannot work at the site
    │   ├── WeightsError          missing, extra or mis-shaped weights, or a file that cannot be read safely
    │   ├── RecipeError           a recipe that cannot be read
    │   ├── InsertionError        no such insertion, or one that can no longer be undone
    │   └── OutputError           the result cannot, or must not, be written there
    ├── CheckFailed           exit 1: the work was done and a check says it is not right
    │   ├── ParityFailed          a block does not agree with its PyTorch module
    │   ├── BaseDiffers           a model is not, or cannot be told to be, the one that blocks were trained in
    │   ├── CannotRun             onnxruntime refuses the model or its input
    │   └── InvalidModel          the result would not be a valid model
    └── EnvironmentLacks      exit 3: this machine lacks something that was asked for
        ├── MissingProvider       an onnxruntime execution provider
        ├── NoKernel              an implementation of an operator in the installed onnxruntime
        └── MissingDependency     a Python package

A GraphSurgeryWarning is a UserWarning: what was asked for was done, and there is something that the user should know.
`insert` and `Recipe.apply` issue it through Python's `warnings`, so that ``warnings.simplefilter("error",
GraphSurgeryWarning)`` makes it an error. The command line prints warnings, and lists those of an insertion in its JSON.

A message that concerns an option names it with :func:`option`: Python users read ``after=`` and ``force=True``, and the
command line spells the same message with ``--after`` and ``--force``, and what concerns an entry of a recipe with the
keys of that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_OPTION = re.compile("\ue000([^\ue000-\ue002]*)\ue001([^\ue000-\ue002]*)\ue002")
"""an option in a message: its name and value between characters that no text has"""
_FLAGS = {"settings": "--set", "shapes": "--shape"}
"""those that are not the argument's name with dashes: each gives one of several"""
_LITERAL = r"True|False|None|-?\d+(\.\d*)?(e-?\d+)?"


def option(name: str, value: object = "") -> str:
    """An option as part of a message; ``name`` is the argument in Python, with underscores.

    >>> str(RequestError(f"it exists already; use {option('force', True)}"))
    'it exists already; use force=True'
    """
    return f"\ue000{name}\ue001{value}\ue002"


def spelled(message: str, spell: Callable[[str, str], str]) -> str:
    """A message with every option in it spelled by ``spell(name, value)``; the value is "" where none is named."""
    return _OPTION.sub(lambda found: spell(*found.groups()), message) if "\ue000" in message else message


def as_argument(name: str, value: str) -> str:
    """How Python spells an option: ``after=``, ``force=True``, ``gate='residual'``, ``settings={'bn_eps': 0.001}``."""
    setting, equals, given = value.rpartition("=") if name == "shapes" else value.partition("=")
    if name in ("settings", "shapes") and equals:
        plain = given.isupper() or re.fullmatch(_LITERAL, given)
        return f"{name}={{{setting!r}: {given if plain else repr(given)}}}"
    return f"{name}={value if value in ('', 'True', 'False') or value.isupper() else repr(value)}"


def as_key(name: str, value: str) -> str:
    """How an entry of a recipe spells an option: ``after``, ``gate: residual``, ``settings: {reduction: 8}``."""
    setting, equals, given = value.rpartition("=") if name == "shapes" else value.partition("=")
    if name in ("settings", "shapes") and equals:
        return f"{name}: {{{setting}: {given}}}"
    return f"{name}: {value}" if value else name


def as_flag(name: str, value: str, flag: str = "") -> str:
    """How the command line spells an option: ``--after``, ``--gate residual``, ``--set reduction=8``, and
    ``--module 'ge[theta]'``, which a shell would expand without quotes.

    ``flag``: the one that it has in a command, where that is another.
    """
    flag = flag or _FLAGS.get(name) or f"--{name.replace('_', '-')}"
    if value in ("", "True"):
        return flag
    return f"{flag} '{value}'" if "[" in value and name == "module" else f"{flag} {value}"


def _as_key(found: re.Match[str], keys: Collection[str]) -> str:
    name, value = found.groups()
    return as_key(name, value) if name in keys else found.group()


_usual_spelling: ContextVar[Callable[[str, str], str]] = ContextVar("usual_spelling", default=as_argument)


@contextmanager
def spelling(spell: Callable[[str, str], str]) -> Iterator[None]:
    """While this lasts, :func:`readable` spells options so, and not as arguments."""
    token = _usual_spelling.set(spell)
    try:
        yield
    finally:
        _usual_spelling.reset(token)


def readable(value: Any) -> Any:
    """Plain data with the options in its texts spelled as its reader does: arguments, or flags on the command line."""
    if isinstance(value, str):
        return spelled(value, _usual_spelling.get())
    if isinstance(value, Mapping):
        return {key: readable(each) for key, each in value.items()}
    return [readable(each) for each in value] if isinstance(value, list | tuple) else value


class _Told(Exception):
    """What errors and warnings have in common: a message in which options may be named."""

    usual_option: str | None = None
    """the option that errors of the class concern, unless one states another"""

    def __init__(self, message: object = "", *, option: str | None = None, candidates: Sequence[str] = ()) -> None:
        self.message = str(message)
        """with options as :func:`option` marks them; ``args`` and ``str(error)`` spell them for Python"""
        super().__init__(spelled(self.message, as_argument))
        named = _OPTION.search(self.message)
        self._cause = option or self.usual_option
        self._named = named.group(1) if named else None
        self.candidates = tuple(candidates)
        """what could have been meant, the nearest first"""

    def __reduce__(self) -> tuple[type[_Told], tuple[str], dict[str, object]]:
        return type(self), (self.message,), vars(self)

    @property
    def option(self) -> str | None:
        """The option that is concerned, as the argument is called in Python; by default the first that is named."""
        return self._cause or self._named

    def begin_with(self, label: str, keys: Collection[str] = ()) -> None:
        """Say at the beginning of the message what the error is in, and spell its options that are ``keys`` there."""
        self.message = f"{label}: {_OPTION.sub(lambda found: _as_key(found, keys), self.message)}"
        self.args = (spelled(self.message, as_argument),)

    def concern(self, name: str) -> None:
        """State the option that is concerned, unless that is known already."""
        self._cause = self._cause or name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class GraphSurgeryError(_Told):
    """Base of all errors of this package; ``exit_code`` is what the command line ends with."""

    exit_code = 2


class GraphSurgeryWarning(_Told, UserWarning):
    """The work was done, and the user should know something of it."""


@contextmanager
def concerning(name: str, *kinds: type[GraphSurgeryError]) -> Iterator[None]:
    """Errors from inside, of these kinds or of any, concern the option ``name``, whatever remedy their text names; one
    that states its option keeps it.

    >>> with concerning("module"):
    ...     raise BlockError("there is no block 'simam2'")
    Traceback (most recent call last):
    graphsurgery.errors.BlockError: there is no block 'simam2'
    """
    try:
        yield
    except GraphSurgeryError as error:
        if not kinds or isinstance(error, kinds):
            error.concern(name)
        raise


class RequestError(GraphSurgeryError):
    """The request is wrong."""


class ModelError(RequestError):
    """The file is not an ONNX model that can be edited."""


class ExternalDataError(ModelError):
    """External data is missing, or its path leaves the model's folder."""


class SelectorError(RequestError):
    """A selector matches nothing, matches too much, or cannot be read."""


class SiteError(RequestError):
    """The tensor exists, but no block can be put there."""


class BlockError(RequestError):
    """Unknown block, variant or hyper-parameter, or a block that cannot work at the site."""


class WeightsError(RequestError):
    """Weights that do not fit the block, or a file that cannot be read safely."""

    usual_option = "weights"


class RecipeError(RequestError):
    """A recipe that cannot be read."""


class InsertionError(RequestError):
    """No such insertion, or one that can no longer be undone."""


class OutputError(RequestError):
    """The result cannot, or must not, be written where it was asked for."""

    usual_option = "output"


class CheckFailed(GraphSurgeryError):
    """The work was done, and a check says that it is not right."""

    exit_code = 1


class ParityFailed(CheckFailed):
    """An inserted block does not agree with its PyTorch module."""


class BaseDiffers(CheckFailed):
    """A model is not the rest of the one that blocks were trained in, or nothing tells that it is."""


class CannotRun(CheckFailed):
    """onnxruntime refuses the model or its input."""


class InvalidModel(CheckFailed):
    """The result would not be a valid ONNX model."""


class EnvironmentLacks(GraphSurgeryError):
    """This machine lacks something that was asked for."""

    exit_code = 3


class MissingProvider(EnvironmentLacks):
    """An onnxruntime execution provider that was asked for is not there."""


class NoKernel(EnvironmentLacks):
    """The installed onnxruntime has no implementation of an operator at the model's element type, opset or IR
    version.
    """


class MissingDependency(EnvironmentLacks):
    """A Python package that was asked for is not installed."""
