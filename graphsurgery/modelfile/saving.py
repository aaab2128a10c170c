"""Write a model, whole or not at all, with its external data."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from ..errors import OutputError
from . import data_copies, external_data
from .replacing import Replacement
from .source import FileSource, Source, write_all
from .target import Target, as_output_error, check_sources, check_target, same_file

__all__ = ["Target", "Writable", "check_target", "same_file", "save", "staged", "write_stream", "write_whole"]


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

    def load(self, source: Path) -> Writable:
        """Another model, from its file."""


def save(model: Writable, path: Path, *, force: bool = False) -> Path:
    """Write ``model`` to ``path`` and, if that is another folder than the model's own, copy its external data there.

    The file appears whole or not at all: it is written beside the target and renamed. Raises OutputError if the
    target exists (unless ``force``), its folder does not, it was changed meanwhile, or the disk is full;
    ExternalDataError if the external data is not to be found.
    """
    with staged(model, path, force=force):
        pass
    return path


@contextmanager
def staged(model: Writable, path: Path | Target, *, force: bool = False) -> Iterator[Path]:
    """Write ``model`` to a temporary file beside ``path``, hand that over for checks, and rename it if none failed.

    An exception inside the ``with`` block leaves every file as it was. A Target was checked with its own ``force``.
    """
    target = path if isinstance(path, Target) else check_target(path, force=force)
    _keep_external_data(model, target.real)
    read = {source for source, _, _ in model.ranges() if isinstance(source, FileSource)}
    with Replacement() as new:
        with as_output_error(target.path):
            copies = data_copies.plan(
                model.external_data, model.folder, target, lambda path: model.load(path).external_data
            )
            for each in copies.files:
                new.make_folder(each.destination.parent)
                new.add(each.destination, each.copy, each.found)
            temporary = new.add(target.real, lambda descriptor: _copy(model, descriptor), target.found)
        yield temporary
        with as_output_error(target.path):
            check = partial(_check_unchanged, model, target, read)
            new.commit(check, as_one=copies.of_old_model, overwrite=target.overwrites)
            for source in read:
                source.has_become(target.real)


def _check_unchanged(model: Writable, target: Target, read: Collection[FileSource]) -> None:
    target.check_unchanged(read)
    if model.external_data:
        check_sources(read)


def write_stream(model: Writable, descriptor: int) -> None:
    """Write ``model`` to an open descriptor, standard output say.

    OutputError if that fails, BrokenPipeError if whoever was reading stopped reading.
    """
    with as_output_error(Path("standard output")):
        _copy(model, descriptor)


def write_whole(path: Path | Target, data: bytes | memoryview, *, force: bool = False) -> None:
    """Write a file that is no model, whole or not at all. OutputError as for models."""
    target = path if isinstance(path, Target) else check_target(path, force=force)
    with as_output_error(target.path), Replacement() as new:
        new.add(target.real, lambda descriptor: write_all(descriptor, memoryview(data)), target.found)
        new.commit(target.check_unchanged, overwrite=target.overwrites)


def _keep_external_data(model: Writable, target: Path) -> None:
    """OutputError if the result would take the place of the weights that it refers to."""
    for folder in {target.parent, model.folder or target.parent}:
        for name in model.external_data:
            if external_data.real(name, folder) == target:
                raise OutputError(f"{target.name} is the model's external data; give the result another name")


def _copy(model: Writable, descriptor: int) -> None:
    for source, start, end in model.ranges():
        source.copy(start, end, descriptor)
