"""Where the bytes of a model lie: in a file that stays on disk, or in memory.

A source is read by byte range and copied to a file descriptor by byte range, so that weights go from one file to
another without becoming Python objects.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from ..errors import ModelError
from ..process import open_files
from . import limits

_CHUNK = 1 << 20
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)


class Stamp(NamedTuple):
    """What tells whether a file is the one that it was, with the content that it had."""

    device: int
    inode: int
    size: int
    modified: int
    """nanoseconds, as ``changed``, which is harder to set back"""
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp of a file whose status is known."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @classmethod
    def at(cls, path: Path) -> Stamp | None:
        """The stamp of what is at ``path``, links followed; None if nothing is. OSError if that cannot be told."""
        try:
            return cls.of(os.stat(path))
        except FileNotFoundError:
            return None


class Source(Protocol):
    """Bytes [0, size) that can be read and copied by range."""

    size: int

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end); EOFError if the source has fewer."""

    def copy(self, start: int, end: int, descriptor: int) -> None:
        """Write the bytes [start, end) to an open file descriptor; OSError if that fails."""


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, start: int, end: int) -> bytes:
        if end > self.size:
            raise EOFError
        return self.data[start:end]

    def copy(self, start: int, end: int, descriptor: int) -> None:
        write_all(descriptor, memoryview(self.data)[start:end])


class FileSource:
    """Bytes of a regular file. The file stays open; ModelError from the next read or copy if it changes meanwhile.

    A copy is the source itself. A pickle holds the path and what the file is known by, or the bytes where the path
    does not lead to this file (any more).

    Attributes
    ----------
    path:
        Where the file is, links followed; None if it was given as an open descriptor.
    at_path:
        The file that belongs there: this one, until a result of it takes its place.
    """

    def __init__(
        self, descriptor: int, name: str, stamp: tuple[int, int] | None = None, *, path: Path | None = None
    ) -> None:
        self._descriptor = descriptor
        self.name = name
        status = os.fstat(descriptor)
        self._stamp = stamp or _stamp(status)
        self.size = self._stamp[0]
        self.path = path
        self.at_path = Stamp.of(status)
        open_files.register(self)

    @classmethod
    def open(cls, path: Path) -> Source:
        """Open ``path``. What is not a regular file (a pipe, say) is read into memory. OSError if it cannot be read."""
        descriptor = os.open(path, _READ)
        return cls.adopt(descriptor, str(path), path=Path(os.path.realpath(path)))

    @classmethod
    def adopt(cls, descriptor: int, name: str, *, path: Path | None = None) -> Source:
        """Take over an open descriptor: a regular file at its beginning by reference, anything else into memory.

        OSError for a folder, and for a device that gives anything.
        """
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode) and os.lseek(descriptor, 0, os.SEEK_CUR) == 0:
            return cls(descriptor, name, path=path)
        if stat.S_ISDIR(mode):
            os.close(descriptor)
            raise IsADirectoryError(errno.EISDIR, "is a directory", name)
        with open(descriptor, "rb") as stream:
            if stat.S_ISCHR(mode) and stream.read(1):  # /dev/zero never ends; /dev/null is empty
                raise OSError(errno.EINVAL, "it is a device, not a file", name)
            return BytesSource(_all_of(stream))

    def __del__(self) -> None:
        descriptor, self._descriptor = getattr(self, "_descriptor", -1), -1
        if descriptor > 2:
            os.close(descriptor)

    def __copy__(self) -> FileSource:
        return self

    def __deepcopy__(self, memo: object) -> FileSource:
        return self

    def __reduce__(self) -> tuple[Callable[..., Source], tuple[object, ...]]:
        self.check_unchanged()
        try:
            path = os.path.abspath(self.name)
            if os.path.samestat(os.stat(path), os.fstat(self._descriptor)):
                return _reopen, (path, self._stamp)
        except OSError:
            pass  # no such file: the name is of no path, or the file was moved or deleted
        return BytesSource, (self.read(0, self.size),)

    def check_unchanged(self) -> None:
        """ModelError if the file was written to since it was opened."""
        if _stamp(os.fstat(self._descriptor)) != self._stamp:
            raise ModelError(f"{self.name} was changed by another program while it was in use; start again")

    def has_become(self, path: Path) -> None:
        """Take note that a result has replaced the file, if ``path`` is that of the file."""
        now = Stamp.at(path)
        if self.path == path and now is not None:
            self.at_path = now

    def let_go(self) -> None:
        """Keep the content in a temporary file instead, so that the path can be replaced on any system. OSError where
        there is no room for it, or where another program has changed the file.
        """
        import tempfile

        with tempfile.TemporaryFile() as copy:
            try:
                self.copy(0, self.size, copy.fileno())
            except (ModelError, EOFError) as error:
                raise OSError(errno.EBUSY, str(error) or "it was cut short by another program") from None
            kept = os.dup(copy.fileno())
        old, self._descriptor = self._descriptor, kept
        self._stamp = _stamp(os.fstat(kept))
        os.close(old)

    def read(self, start: int, end: int) -> bytes:
        self.check_unchanged()
        if end - start <= _CHUNK:
            data = open_files.read_at(self._descriptor, end - start, start)
            if len(data) == end - start:
                return data
        return b"".join(self._chunks(start, end))

    def copy(self, start: int, end: int, descriptor: int) -> None:
        self.check_unchanged()
        for chunk in self._chunks(self._copy_in_kernel(start, end, descriptor), end):
            write_all(descriptor, memoryview(chunk))

    def _chunks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes [start, end) in parts: one read gives 2 GB at most, or fewer than were asked for."""
        while start < end:
            chunk = open_files.read_at(self._descriptor, min(_CHUNK, end - start), start)
            if not chunk:
                raise EOFError
            yield chunk
            start += len(chunk)

    def _copy_in_kernel(self, start: int, end: int, descriptor: int) -> int:
        """Let the kernel copy as much as it will; returns where it stopped (at ``start`` where it cannot)."""
        copy_range = getattr(os, "copy_file_range", None)
        while copy_range is not None and start < end:
            try:
                count = copy_range(self._descriptor, descriptor, end - start, offset_src=start)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                    raise
                break  # not between these two kinds of file: the caller copies by hand
            if count == 0:
                break
            start += count
        return start


def _all_of(stream: IO[bytes]) -> bytes:
    """What comes through a pipe; of what is too much for a model, enough to tell."""
    content = BytesIO()
    while content.tell() <= limits.PROTOBUF_BYTES and (chunk := stream.read(_CHUNK)):
        content.write(chunk)
    return content.getvalue()


def _stamp(status: os.stat_result) -> tuple[int, int]:
    """What tells whether a file was written to: its size and the time of the last change."""
    return status.st_size, status.st_mtime_ns


def _reopen(path: str, stamp: tuple[int, int]) -> FileSource:
    """The source of a pickle. ModelError if its file is not there, or is not as it was."""
    try:
        source = FileSource(os.open(path, _READ), path, stamp, path=Path(os.path.realpath(path)))
    except OSError as error:
        raise ModelError(f"{path} cannot be opened again: {error.strerror}") from None
    source.check_unchanged()
    return source


def write_all(descriptor: int, data: memoryview) -> None:
    """Write all of ``data``: a single write to a pipe or a full disk may take only a part."""
    while data:
        data = data[os.write(descriptor, data) :]
