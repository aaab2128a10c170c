"""Libraries: where NVIDIA's parser and builder lie, and whether they are of a version that this code knows."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ...errors import EnvironmentLacks, MissingDependency

PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
"""in the wheels onnxruntime-ep-nv-tensorrt-rtx-cu12 and -cu13. It is looked up and never imported: that makes links in
site-packages and changes LD_LIBRARY_PATH."""
KNOWN = ("1.5.0", "1.6.1", "1.7.1")
"""versions whose interfaces were compared with driver/binding.py, and which answered as its tests say"""
_LIBRARY = "TensorRT for RTX, whose parser this asks,"
_NAME = re.compile(r"lib(tensorrt_rtx|tensorrt_onnxparser_rtx)\.so\.(\d+\.\d+\.\d+)")


@dataclass(frozen=True)
class Libraries:
    """The two libraries of one wheel."""

    runtime: Path
    parser: Path
    version: str
    """of TensorRT for RTX, in the name of both: 1.7.1"""

    @property
    def number(self) -> int:
        """The version as the library states it: 10701."""
        major, minor, patch = map(int, self.version.split("."))
        return major * 10000 + minor * 100 + patch


def find() -> Libraries:
    """The installed libraries, which are not loaded. Nothing of the wheel is imported.

    Raises
    ------
    MissingDependency
        If they are not installed, or not whole.
    EnvironmentLacks
        If this is no machine for them, or their version is not known.
    """
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise EnvironmentLacks(f"{_LIBRARY} runs on Linux x86-64 only")
    folder = _folder()
    try:
        found = {match[1]: match for match in map(_NAME.fullmatch, sorted(os.listdir(folder))) if match}
    except OSError as error:
        raise EnvironmentLacks(f"{_LIBRARY} cannot be read in {folder}: {error.strerror}") from None
    runtime, parser = (found.get(name) for name in ("tensorrt_rtx", "tensorrt_onnxparser_rtx"))
    if runtime is None or parser is None or runtime[2] != parser[2]:
        raise MissingDependency(f"{_LIBRARY} is not whole in {folder}; install it anew")
    if runtime[2] not in KNOWN:
        known = ", ".join(KNOWN)
        raise EnvironmentLacks(f"{_LIBRARY} is installed in version {runtime[2]}; graphsurgery knows {known}")
    return Libraries(folder / runtime[0], folder / parser[0], runtime[2])


def _folder() -> Path:
    try:
        spec = find_spec(PACKAGE)
    except (ImportError, ValueError):  # something else under that name
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders or not os.path.isdir(folders[0]):
        raise MissingDependency(f'{_LIBRARY} is not installed; pip install "graphsurgery[parser]"')
    return Path(folders[0])
