"""Stand-ins for systems that are not at hand: `python -m tests.other_systems SYSTEM SCRIPT` runs a script without what
Windows or macOS lack, and on "windows" with files that cannot be replaced, moved or removed while they are open.

Other packages are imported first: they have builds of their own for these systems.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import shutil
import signal
import sys
from collections.abc import Callable
from importlib import import_module, reload
from pathlib import Path
from types import SimpleNamespace
from typing import Any

OTHERS = ("numpy", "onnx", "onnx_graphsurgeon", "onnxruntime", "typer", "yaml", "torch", "tempfile", "subprocess")
LINUX_ONLY = """copy_file_range eventfd fdatasync getrandom getxattr listxattr memfd_create pidfd_open posix_fadvise
    removexattr sched_getaffinity sched_setaffinity sendfile setxattr splice"""
POSIX_ONLY = """chown chroot fchdir fchmod fchown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid
    getpgrp getpriority getsid getuid killpg lchown lockf major makedev mkfifo mknod nice openpty posix_fallocate
    posix_spawn pread preadv pwrite pwritev readv setpgid setpriority setsid statvfs fstatvfs sysconf
    tcgetpgrp uname wait3 wait4 writev"""
FLAGS = """O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_SYNC"""
MODULES = """fcntl grp pty pwd resource syslog termios tty"""
SIGNALS = """SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGXCPU SIGXFSZ
    alarm pthread_kill pthread_sigmask setitimer sigwait"""


def macos() -> None:
    """Without what is on Linux alone."""
    _drop(os, LINUX_ONLY)
    _hide_proc()


def windows() -> None:
    """Without what is on POSIX, and with a file system that keeps files while they are open."""
    _drop(os, LINUX_ONLY)
    _drop(os, POSIX_ONLY)
    _drop(os, FLAGS)
    _drop(signal, SIGNALS)
    for name in MODULES.split():
        sys.modules[name] = None  # type: ignore[assignment]
    for name in ("replace", "rename", "unlink", "remove", "rmdir"):
        setattr(os, name, _refusing(getattr(os, name)))
    opened = os.open

    def open_no_folder(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        without_name = flags & os.O_TMPFILE == os.O_TMPFILE  # Python's own way to a temporary file on Linux
        if isinstance(path, str | os.PathLike) and os.path.isdir(path) and not without_name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *arguments, **options)

    os.open = open_no_folder
    reload(shutil)  # it asks the system for what there is when it is imported
    _hide_proc()


def _drop(module: Any, names: str) -> None:
    for name in names.split():
        with contextlib.suppress(AttributeError):
            delattr(module, name)


def _hide_proc() -> None:
    """Only for pathlib: os.listdir of it is needed to know what is open."""
    opened = Path.read_text

    def read_text(self: Path, *arguments: Any, **options: Any) -> str:
        if self.parts[:2] in (("/", "proc"), ("/", "sys")):
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return opened(self, *arguments, **options)

    Path.read_text = read_text  # type: ignore[method-assign]


def _refusing(operation: Callable[..., None]) -> Callable[..., None]:
    """An operation on paths that is refused where one of them is open."""

    def refused(*paths: Any, **options: Any) -> None:
        for path in paths:
            if isinstance(path, str | os.PathLike) and _is_open(os.path.abspath(path)):
                raise PermissionError(13, "The process cannot access the file", str(path))
        operation(*paths, **options)

    return refused


def _is_open(path: str) -> bool:
    """Whether this process has a file, or one in a folder, of this path open or mapped."""
    return any(each == path or each.startswith(f"{path}/") for each in (*_descriptors(), *_mapped()))


def _descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


def _mapped() -> list[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        return [line.rstrip("\n").split(maxsplit=5)[5] for line in lines if "/" in line]


if __name__ == "__main__":
    system, script = sys.argv[1:]
    for package in OTHERS:
        with contextlib.suppress(ImportError):
            __import__(package)
    {"macos": macos, "windows": windows}[system]()
    libraries = import_module("graphsurgery.tensorrt.rtx.libraries")
    vars(libraries)["sys"] = SimpleNamespace(platform=system)  # all that asks which system it is, for a wheel of Linux
    runpy.run_path(script, run_name="__main__")
