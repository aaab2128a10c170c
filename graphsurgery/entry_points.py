"""The installed catalogues: modules behind an entry-point group, ours and those of other people's packages.

A module that cannot be loaded takes nothing with it but what is in it.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, distributions, entry_points
from types import FrameType, ModuleType
from typing import NamedTuple, TypeVar

from .errors import GraphSurgeryWarning
from .messages import one_line

Kind = TypeVar("Kind")
CATALOGUE = "graphsurgery.patterns"
"""both the package of the project's own catalogue and the entry-point group of blocks"""


class Broken(NamedTuple):
    """A module of a catalogue that is not to be had."""

    module: str
    package: str
    """the installed package that it belongs to"""
    reason: str
    lacks: bool = False
    """Whether that is because another module is not installed."""

    def __str__(self) -> str:
        return f"{self.module} of the installed package {self.package} cannot be loaded: {self.reason}"


@dataclass
class Catalogues:
    """All catalogues of a group."""

    modules: list[tuple[str, ModuleType]] = field(default_factory=list)
    """with the name of the installed package, in the order of their names"""
    broken: list[Broken] = field(default_factory=list)

    def values(self, kind: type[Kind]) -> list[Kind]:
        """Module-level values of a type, each once, in the order in which they are written."""
        found = (value for _, module in self.modules for value in vars(module).values() if isinstance(value, kind))
        return list({id(value): value for value in found}.values())


def loaded(group: str) -> Catalogues:
    """Load every module of every installed catalogue of a group.

    An entry point names a module, or a package of which all modules are meant.
    """
    entries, damaged = _entries(group)
    found = Catalogues(broken=damaged)
    for name, package in entries.items():
        _load_all(name, package, found)
    return found


def module_of_the_only(group: str, name: str) -> ModuleType | None:
    """The module ``name`` right inside of a group's catalogue, if there is only one and it has that module."""
    entries, damaged = _entries(group)
    if damaged or len(entries) != 1 or not name.isidentifier():
        return None
    (top,) = entries
    package = _module(top)
    if not any(inner.name == name for inner in pkgutil.iter_modules(getattr(package, "__path__", []))):
        return None
    module = _module(f"{top}.{name}")
    return module if isinstance(module, ModuleType) else None


def tell(sentences: Iterable[str]) -> None:
    """Warn of what is wrong with an installed package."""
    for sentence in sentences:
        warnings.warn(sentence, GraphSurgeryWarning, stacklevel=3)


def reason(error: BaseException) -> str:
    """Why code of other people failed, in one line."""
    text = one_line(error)
    if isinstance(error, ImportError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _entries(group: str) -> tuple[dict[str, str], list[Broken]]:
    """What the entry points name, with the installed package that each belongs to, and packages whose metadata is
    damaged.
    """
    damaged = list[Broken]()
    try:
        declared = list(entry_points(group=group))
    except Exception:  # importlib.metadata reads all packages or none
        declared = []
        for each in distributions():
            try:
                declared += each.entry_points.select(group=group)
            except Exception as error:
                damaged.append(Broken("entry_points.txt", str(each.name), reason(error)))
    entries = {entry.value: _owner(entry) for entry in sorted(declared, key=lambda entry: entry.value)}
    return entries or _of_a_checkout(group), damaged


def _of_a_checkout(group: str) -> dict[str, str]:
    """The project's own catalogue where nothing is installed, so that a checkout works as it lies."""
    own: dict[str, str] = importlib.import_module(CATALOGUE).ENTRY_POINTS
    return {own[group]: "graphsurgery"} if group in own else {}


def _owner(entry: EntryPoint) -> str:
    """The name of an entry point's package; without metadata, that of the package to import."""
    name = entry.dist.name if entry.dist is not None else ""
    return name or entry.value.partition(":")[0].partition(".")[0]


def _load_all(name: str, package: str, found: Catalogues) -> None:
    module = _module(name)
    if isinstance(module, ModuleType):
        found.modules.append((package, module))
        for inner in pkgutil.iter_modules(getattr(module, "__path__", [])):
            _load_all(f"{name}.{inner.name}", package, found)
    else:
        found.broken.append(Broken(name, package, reason(module), isinstance(module, ModuleNotFoundError)))


def _module(name: str) -> ModuleType | BaseException:
    """A module, or why it cannot be imported. What it prints is no part of any result."""
    try:
        with contextlib.redirect_stdout(sys.stderr), foreign_code():
            return importlib.import_module(name)
    except ForeignError as error:
        return error.raised


class ForeignError(Exception):
    """What code of other people raised, whatever that is."""

    def __init__(self, raised: BaseException) -> None:
        super().__init__(reason(raised))
        self.raised = raised


@contextlib.contextmanager
def foreign_code() -> Iterator[None]:
    """Run code of other people in the body: ForeignError for all that it raises, SystemExit and KeyboardInterrupt too.

    A KeyboardInterrupt of the user's own, from a signal, passes.
    """
    pressed = list[int]()

    def interrupted(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupted)
        yield
    except BaseException as error:
        if pressed:
            raise
        raise ForeignError(error) from None
    finally:
        if signal.getsignal(signal.SIGINT) is interrupted:
            signal.signal(signal.SIGINT, signal.default_int_handler)
