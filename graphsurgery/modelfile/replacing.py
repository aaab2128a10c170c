"""Replacement: new files that take their places together, all of them or none, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import OutputError
from ..process import leftovers, open_files, signals
from .flushing import flushed
from .source import Stamp

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

OLD = "graphsurgery-old-"
"""how the name begins of a folder that keeps a model, with its external data, while it is being replaced"""
_PART = ".part"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class _NewFile(NamedTuple):
    """A file that was written under a temporary name."""

    temporary: Path
    destination: Path
    found: Stamp | None
    """what was at the destination"""
    inode: tuple[int, int]

    @property
    def is_placed(self) -> bool:
        """Whether it has its destination."""
        now = Stamp.at(self.destination)
        return now is not None and now[:2] == self.inode

    @property
    def is_untouched(self) -> bool:
        """Whether what was at the destination still is."""
        now = Stamp.at(self.destination)
        return now is not None and self.found is not None and now[:2] == self.found[:2]


class Replacement:
    """New files for one folder and those below it. The last one added is the head, the others are its data.

    Nobody finds the head of before with new data, or the new head with data of before. Where old data has to be
    replaced, the old head is moved first, into a folder beside it, and its data behind it. That folder goes when the
    new files are there. (Hard links would be simpler, but onnx refuses to read external data that has several names.)

    As a context manager it removes, in the end, what has not got its place.
    """

    def __init__(self) -> None:
        self._files: list[_NewFile] = []
        self._temporaries: list[Path] = []
        self._folders: list[Path] = []

    def __enter__(self) -> Replacement:
        return self

    def __exit__(self, *error: object) -> None:
        for path in (*self._temporaries, *reversed(self._folders)):
            leftovers.remove(path)

    def make_folder(self, folder: Path) -> None:
        """Make a folder and those above it; without a commit they are removed again."""
        new = [each for each in (folder, *folder.parents) if not each.exists()][::-1]
        for each in new:
            if not each.exists():  # a/b/.. is there once a/b is
                self._folders.append(each)
                leftovers.register(each)
                each.mkdir(exist_ok=True)

    def add(self, destination: Path, write: Callable[[int], None], found: Stamp | None) -> Path:
        """Write a new file for a destination where ``found`` is; returns its temporary name. ``write`` takes a
        descriptor. Owner, group and mode are those of the file there, as far as this process may give them.
        """
        temporary, descriptor = self._open(destination.parent, 0o666 if found is None else 0o600)
        try:
            with flushed(descriptor):
                write(descriptor)
                if found is not None:
                    _make_alike(temporary, destination)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        self._files.append(_NewFile(temporary, destination, found, (status.st_dev, status.st_ino)))
        return temporary

    def _open(self, folder: Path, mode: int) -> tuple[Path, int]:
        """A new file of a name that nobody else has, open to be written."""
        while True:
            path = folder / leftovers.unique_name(_PART)
            leftovers.register(path)  # first, because a signal may come right behind the next line
            try:
                descriptor = os.open(path, _NEW, mode)
            except FileExistsError:
                leftovers.forget(path)
            else:
                self._temporaries.append(path)
                return path, descriptor

    def commit(self, check: Callable[[], None], *, as_one: bool = False, overwrite: bool = False) -> None:
        """Give every file its destination, if ``check`` raises nothing.

        ``as_one``: whether the head that is replaced reads any of the data that is written, and has to go first.
        ``overwrite``: whether a head that has come into being since it was looked for may be replaced.
        No other graphsurgery process changes files in the folder of the head meanwhile, where the system has locks.
        Raises OSError and what ``check`` raises, with every file as it was; OutputError if another program changed a
        file, or if the old files could not be put back and are kept.
        """
        head, folder = self._files[-1], self._files[-1].destination.parent
        kept = folder / leftovers.unique_name().replace(leftovers.PREFIX, OLD) if as_one else None
        with _locked(folder):
            check()
            for file in self._files if as_one else self._files[:-1]:
                if Stamp.at(file.destination) != file.found:
                    raise OutputError(f"{file.destination} was changed while this was at work; nothing was written")
            with signals.held():
                try:
                    self._exchange(head, kept, replaces=kept is None and (overwrite or head.found is not None))
                    for made in self._folders:
                        leftovers.forget(made)
                    self._folders.clear()
                except BaseException as error:
                    if not head.is_placed:
                        self._undo(head, kept, error)
                    raise
                finally:
                    if kept is not None and (head.is_placed or head.is_untouched):
                        leftovers.remove(kept, content=True)

    def _exchange(self, head: _NewFile, kept: Path | None, *, replaces: bool) -> None:
        data, folder = self._files[:-1], head.destination.parent
        if kept is not None:
            for file in (head, *data):
                if file.found is not None:
                    place = kept / file.destination.relative_to(folder)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    open_files.freed(os.replace, file.destination, place)
                    _sync_folder(place.parent)
                    _sync_folder(file.destination.parent)
        for file in data:
            if file.destination.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(file.destination))
            open_files.freed(os.replace, file.temporary, file.destination)
        for each in {file.destination.parent for file in data}:
            _sync_folder(each)
        if replaces:
            open_files.freed(os.replace, head.temporary, head.destination)
        else:
            _place_new(head)
        _sync_folder(folder)

    def _undo(self, head: _NewFile, kept: Path | None, error: BaseException) -> None:
        """Put back what was there. Where that cannot be done, OutputError says where the old files are."""
        folder = head.destination.parent
        try:
            for file in (*self._files[:-1], head):
                if file.is_placed:
                    open_files.freed(os.unlink, file.destination)
                old = None if kept is None else kept / file.destination.relative_to(folder)
                if old is not None and old.exists():
                    if file.destination.exists():
                        raise FileExistsError(errno.EEXIST, "another program made a file of this name")
                    os.replace(old, file.destination)
        except OSError as failure:
            reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
            where = f"the old files are kept in {kept}" if kept is not None else "new external data is left behind"
            raise OutputError(
                f"{head.destination} was not written: {reason}; what was there could not be put back "
                f"({failure.strerror}): {where}"
            ) from None


def _place_new(file: _NewFile) -> None:
    """Give a file its destination where nothing is: FileExistsError if another program has made a file there."""
    try:
        os.link(file.temporary, file.destination)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError, AttributeError):  # a file system without hard links
        if file.destination.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(file.destination)) from None
        open_files.freed(os.rename, file.temporary, file.destination)
    else:
        leftovers.remove(file.temporary)


def _make_alike(path: Path, model: Path) -> None:
    """Owner, group, extended attributes (ACLs) and mode of another file, as far as this process may give them."""
    status = model.stat()
    for owner, group in ((status.st_uid, status.st_gid), (-1, status.st_gid)):
        with contextlib.suppress(OSError, AttributeError):
            os.chown(path, owner, group)
            break
    with contextlib.suppress(OSError, AttributeError):
        for name in os.listxattr(model):
            with contextlib.suppress(OSError):
                os.setxattr(path, name, os.getxattr(model, name))
    with contextlib.suppress(PermissionError):  # a file system without modes
        os.chmod(path, stat.S_IMODE(status.st_mode))


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows has no such thing; a folder may be writable and not readable
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other graphsurgery processes from replacing files in a folder, where its file system has locks."""
    descriptor = -1
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)
