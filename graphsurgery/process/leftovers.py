"""Leftovers: temporary files and folders of this process, which must not be there when it has ended.

Code that makes one removes it, exceptions or not. The register is for ends that raise no exception: signals.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from . import open_files

PREFIX = ".graphsurgery-"
"""how the names of all temporary files begin"""

_registered: dict[str, tuple[int, bool]] = {}
"""path -> the process that made it, and whether its content goes with it; a fork has the entries of its parent, and no
business with them"""


def unique_name(suffix: str = "") -> str:
    """A file name that no other process, on this machine or another, has chosen or will choose."""
    return f"{PREFIX}{os.urandom(8).hex()}{suffix}"


def register(path: str | os.PathLike[str], *, content: bool = False) -> None:
    """Remove ``path`` if a signal ends the process; a folder only if it is empty, or with its ``content``."""
    _registered[os.path.abspath(path)] = os.getpid(), content


def forget(path: str | os.PathLike[str]) -> None:
    """Leave ``path`` alone from now on: it is gone, or it is a result."""
    _registered.pop(os.path.abspath(path), None)


def remove_all() -> None:
    """Remove what this process has registered, the latest first. Nothing is raised for what cannot be removed."""
    for path, (process, content) in reversed(list(_registered.items())):
        if process == os.getpid():
            remove(path, content=content)


def remove(path: str | os.PathLike[str], *, content: bool = False) -> None:
    """Remove a file, or a folder that is empty or goes with its ``content``, as far as that is possible, and forget it.

    Links are not followed.
    """
    if not os.path.isdir(path) or os.path.islink(path):
        _attempt(os.unlink, path)
    else:
        for folder, folders, files in os.walk(path, topdown=False) if content else ():
            for name in (*files, *folders):
                remove(os.path.join(folder, name))
        _attempt(os.rmdir, path)
    forget(path)


def _attempt(action: Callable[[str | os.PathLike[str]], None], path: str | os.PathLike[str]) -> None:
    with suppress(OSError):
        open_files.freed(action, path)
