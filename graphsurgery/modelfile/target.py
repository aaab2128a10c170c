"""Target: a file that is to be written, what is there already, and whether it may be replaced."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import OutputError, option
from .source import FileSource, Stamp

_CHANGED = "{path} was changed while this was at work on it, by another program; nothing was written: start again"


class Target(NamedTuple):
    """A file that is to be written. Made by :func:`check_target`."""

    path: Path
    """as it was given"""
    real: Path
    """links followed"""
    force: bool
    found: Stamp | None
    """what was there when it was checked"""
    watched: bool

    @property
    def overwrites(self) -> bool:
        """Whether whatever is there is replaced."""
        return self.force and not self.watched

    def beside(self, path: Path) -> Path:
        """A file below the target's real folder as the user would call it."""
        folder = self.path.parent
        here = os.path.realpath(folder) == str(self.real.parent)
        return folder / path.relative_to(self.real.parent) if here else path

    def check_unchanged(self, read: Iterable[FileSource] = ()) -> None:
        """OutputError if another program has changed it.

        A file that the model was ``read`` from still has to be that file, and one that was not there must not have come
        into being. Any other has to be what was found, if it is ``watched``.
        """
        now = Stamp.at(self.real)
        source = next((each for each in read if each.path == self.real), None)
        expected = self.found if source is None or self.found is None else source.at_path
        if now == expected or (source is None and self.overwrites):
            return
        if not self.force:
            raise OutputError(f"{self.path} exists already: another program made it while this was at work")
        raise OutputError(_CHANGED.format(path=self.path))


def check_target(path: Path, *, force: bool, watched: bool = False) -> Target:
    """The file to write, with links followed. OutputError if it must not be written.

    ``watched``: whether it is an error if the file that is there changes from now on, though ``force`` is given.
    """
    with as_output_error(path):
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise OutputError(f"{path} is a directory; give the name of a file")
        if not target.parent.is_dir():
            raise OutputError(f"there is no folder {path.parent} to write {path.name} to")
        found = Stamp.at(target)
        if found and not target.is_file():
            sentence = f"{path} is not a regular file, so it cannot be replaced by one (-o - is standard output)"
            raise OutputError(sentence)
        if found and not force:
            raise OutputError(f"{path} exists already; use {option('force', True)} to replace it")
        if not os.access(target.parent, os.W_OK):
            raise OutputError(f"{path} cannot be written: no permission in {path.parent}")
        return Target(path, target, force, found, watched)


def check_sources(read: Iterable[FileSource]) -> None:
    """OutputError if a file that a model was read from has been replaced since: its external data may be another's."""
    for source in read:
        if source.path is not None and Stamp.at(source.path) != source.at_path:
            raise OutputError(_CHANGED.format(path=source.name))


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Raise OutputError, in the user's terms, for an OSError. A reader that went away stays a BrokenPipeError."""
    try:
        yield
    except EOFError:
        raise OutputError("the model file was cut short by another program while it was being copied") from None
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{path} was not written: there is no space left on the disk") from None
        raise OutputError(f"{path} was not written: {error.strerror or error}") from None


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths are one file (links included); False if either does not exist."""
    return first.exists() and second.exists() and os.path.samefile(first, second)
