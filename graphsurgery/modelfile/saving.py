"""Write a model, whole or not at all, with its external data."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import OutputError, option
from . import external_data
from .source import BytesSource, Source


class Writable(Protocol):
    """A model as it is written: ranges of bytes, and the files beside it that hold its external data."""

    @property
    def folder(self) -> Path | None:
        """Where relative paths of external data start; None for a model from memory."""

    @property
    def external_data(self) -> tuple[str, ...]:
        """The files of external data, as the model names them."""

    def ranges(self) -> Iterator[tuple[Source, int, int]]:
        """The bytes of the file as (source, start, end), in order."""


def save(model: Writable, path: Path, *, force: bool = False) -> Path:
    """Write ``model`` to ``path`` and, if that is another folder than the model's own, copy its external data there.

    The file appears whole or not at all: it is written beside the target and renamed. Raises OutputError if the
    target exists (unless ``force``), its folder does not, or the disk is full; ExternalDataError if the external
    data is not to be found.
    """
    with staged(model, path, force=force):
        pass
    return path


@contextmanager
def staged(model: Writable, path: Path, *, force: bool = False) -> Iterator[Path]:
    """Write ``model`` to a temporary file beside ``path``, hand that over for checks, and rename it if none failed.

    An exception inside the ``with`` block leaves every file as it was.
    """
    target = check_target(path, force=force)
    _keep_external_data(model, target)
    moves: list[tuple[Path, Path]] = []
    new_folders: list[Path] = []
    done = False
    try:
        with _as_output_error(path):
            for source, destination in _external_copies(model, target.parent, force=force):
                new_folders += _make_folders(destination.parent)
                copy = _temporary(destination)
                moves.append((copy, destination))
                shutil.copyfile(source, copy)
            temporary = _temporary(target)
            moves.append((temporary, target))
            with open(temporary, "xb", buffering=0) as stream:
                _copy(model, stream.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
        yield temporary
        with _as_output_error(path):
            for copy, destination in moves:
                os.replace(copy, destination)
        done = True
    finally:
        for copy, _ in moves:
            with contextlib.suppress(FileNotFoundError):
                copy.unlink()
        for folder in () if done else reversed(new_folders):
            with contextlib.suppress(OSError):
                folder.rmdir()


def check_target(path: Path, *, force: bool) -> Path:
    """The file that would be written, links followed. OutputError if it must not be."""
    with _as_output_error(path):
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise OutputError(f"{path} is a directory; give the name of a file")
        if not target.parent.is_dir():
            raise OutputError(f"there is no folder {path.parent} to write {path.name} to")
        if target.exists() and not target.is_file():
            sentence = f"{path} is not a regular file, so it cannot be replaced by one (-o - is standard output)"
            raise OutputError(sentence)
        if target.exists() and not force:
            raise OutputError(f"{path} exists already; use {option('force', True)} to replace it")
        if not os.access(target.parent, os.W_OK):
            raise OutputError(f"{path} cannot be written: no permission in {path.parent}")
        return target


def write_stream(model: Writable, descriptor: int) -> None:
    """Write ``model`` to an open descriptor, standard output say. OutputError if that fails."""
    with _as_output_error(Path("standard output")):
        _copy(model, descriptor)


def write_whole(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write a file that is no model, whole or not at all. OutputError as for models."""
    save(_Content(data), path, force=force)


@dataclass(frozen=True)
class _Content:
    """The content of a file as it is written."""

    data: bytes
    folder: Path | None = None
    external_data: tuple[str, ...] = ()

    def ranges(self) -> Iterator[tuple[Source, int, int]]:
        yield BytesSource(self.data), 0, len(self.data)


def _keep_external_data(model: Writable, target: Path) -> None:
    """OutputError if the result would take the place of the weights that it refers to."""
    for folder in {target.parent, model.folder or target.parent}:
        for name in model.external_data:
            if external_data.real(name, folder) == target:
                raise OutputError(f"{target.name} is the model's external data; give the result another name")


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the ones that were not there, the outermost first."""
    new = [each for each in (folder, *folder.parents) if not each.exists()][::-1]
    for each in new:
        each.mkdir(exist_ok=True)  # a/b/.. is there once a/b is
    return new


def _external_copies(model: Writable, folder: Path, *, force: bool) -> Iterator[tuple[Path, Path]]:
    names = model.external_data
    if not names:
        return
    if model.folder is None:
        external_data.check(names, folder)  # a model from memory can only refer to what is there already
        return
    same = os.path.realpath(model.folder) == os.path.realpath(folder)
    for name in names:
        source = external_data.resolve(name, model.folder)
        if same:
            continue
        destination = folder / name
        if destination.exists() and not force:
            force_it = f"use {option('force', True)} to replace it with the model's external data"
            raise OutputError(f"{destination} exists already; {force_it}")
        yield source, destination


_count = itertools.count()


def _temporary(target: Path) -> Path:
    """A name of its own in the target's folder, whatever else this process or another one is writing there."""
    return target.with_name(f".graphsurgery-{os.getpid()}-{next(_count)}.part")


def _copy(model: Writable, descriptor: int) -> None:
    for source, start, end in model.ranges():
        source.copy(start, end, descriptor)


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    """Raise OutputError, in the user's terms, for an OSError."""
    try:
        yield
    except EOFError:
        raise OutputError("the model file was cut short by another program while it was being copied") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{path} was not written: there is no space left on the disk") from None
        if error.errno == errno.EPIPE:
            raise OutputError("whoever was reading standard output stopped reading") from None
        raise OutputError(f"{path} was not written: {error.strerror or error}") from None


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths are one file (links included); False if either does not exist."""
    return first.exists() and second.exists() and os.path.samefile(first, second)
