"""Flushing: what is written to a file goes to the disk while more is written, so that little is left to wait for."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PAUSE = 0.002
"""seconds of writing before the disk is given what there is; small files are written sooner"""
_NO_FLUSHING = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""what file systems answer that know of no such thing"""


@contextmanager
def flushed(descriptor: int) -> Iterator[None]:
    """When the body ends without an exception, the disk has what it wrote, where the file system knows how to tell.

    OSError if the disk could not take it. A system without ``fdatasync`` or threads does all of it in the end.
    """
    meanwhile = _Meanwhile(descriptor)
    with meanwhile:
        yield
    meanwhile.check()
    _flush(os.fsync, descriptor)


class _Meanwhile(threading.Thread):
    """Flushes a file over and over in the background while a block of code writes it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self._ended = threading.Event()
        self._error: OSError | None = None

    def __enter__(self) -> None:
        try:
            if hasattr(os, "fdatasync"):
                self.start()
        except RuntimeError:  # no thread is to be had
            pass

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        try:
            while not self._ended.wait(_PAUSE):
                _flush(os.fdatasync, self._descriptor)
        except OSError as error:
            self._error = error

    def check(self) -> None:
        """Raise what a flush met with: the system tells it once, so that the last flush knows nothing of it."""
        if self._error is not None:
            raise self._error


def _flush(flush: Callable[[int], None], descriptor: int) -> None:
    try:
        flush(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSHING:
            raise
