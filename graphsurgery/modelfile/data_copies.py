"""Copies of a model's external data: which files another folder lacks, and which of them may be replaced there."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import GraphSurgeryError, OutputError
from . import external_data
from .replacing import OLD
from .source import FileSource, Stamp
from .target import Target

_CHUNK = 1 << 20
_NOT_OURS = (
    "exists already with other content, and is not external data of a model that would be replaced; give the result "
    "another folder"
)


class DataCopy(NamedTuple):
    """A file of external data that is to be copied."""

    source: Path
    destination: Path
    """links followed"""
    found: Stamp | None
    """what is there"""

    def copy(self, descriptor: int) -> None:
        """Write the data to an open descriptor. ModelError if it changes meanwhile."""
        source = FileSource.open(self.source)
        source.copy(0, source.size, descriptor)
        if isinstance(source, FileSource):
            source.check_unchanged()


class DataCopies(NamedTuple):
    """What happens to the external data of a model that is written to another folder."""

    files: Sequence[DataCopy] = ()
    of_old_model: bool = False
    """whether the model that is there reads any of the files that are written"""


def plan(
    names: Sequence[str], folder: Path | None, target: Target, names_of: Callable[[Path], Sequence[str]]
) -> DataCopies:
    """What has to be copied for a model in ``folder``, None for one from memory, that is written to ``target``.

    ``names_of`` gives the names of the external data of a model on disk. A file that is there with the same content
    stays. One with another content is replaced if it belongs to the model that is replaced, and to no other ``*.onnx``
    in its folder; OutputError if not.
    ExternalDataError if data is missing.
    """
    where = target.real.parent
    if folder is None:
        external_data.check(names, where)  # a model from memory can only refer to what is there already
        return DataCopies()
    sources = {name: external_data.resolve(name, folder) for name in names}
    if os.path.realpath(folder) == str(where):
        return DataCopies()
    copies: dict[Path, DataCopy] = {}
    for name, source in sources.items():
        destination = external_data.real(name, where)
        if not destination.is_relative_to(where):
            raise OutputError(
                f"{where / name} leads out of {where}, so the model's external data cannot be copied there"
            )
        found = Stamp.at(destination)
        if found is None or not _same_content(source, destination):
            # under the name of the model where folders on the way are not there yet
            copies[destination] = DataCopy(source, destination if found else where / name, found)
    if not copies:
        return DataCopies()
    old = _data_of(target.real, names_of) if target.found is not None else set()
    replaced = {destination for destination, copy in copies.items() if copy.found is not None}
    if foreign := sorted(replaced - old):
        raise OutputError(f"{target.beside(foreign[0])} {_NOT_OURS}{_hint(target)}")
    others = filter(Path.is_file, where.glob("*.onnx")) if replaced else ()
    for other in sorted(each for each in others if each.resolve() != target.real):
        if shared := sorted(replaced & _data_of(other, names_of)):
            raise OutputError(
                f"{target.beside(shared[0])} is external data of {target.beside(other)}, too, and the result has other "
                "content for it; give the result another folder"
            )
    return DataCopies(tuple(copies.values()), any(destination in old for destination in copies))


def _data_of(path: Path, names_of: Callable[[Path], Sequence[str]]) -> set[Path]:
    """The external data of the model that is at a path, links followed; empty if that is no model."""
    try:
        return {external_data.real(name, path.parent) for name in names_of(path)}
    except GraphSurgeryError:  # no model
        return set()


def _hint(target: Target) -> str:
    """Where an earlier run that was killed has left the old files."""
    kept = sorted(target.real.parent.glob(f"{OLD}*/{glob.escape(target.real.name)}"))
    if not kept or target.found is not None:
        return ""
    where = target.beside(kept[0].parent)
    return f" (a run was killed while it replaced {target.path}: the old files are kept in {where})"


def _same_content(first: Path, second: Path) -> bool:
    """Whether two files hold the same bytes."""
    if not second.is_file() or first.stat().st_size != second.stat().st_size:
        return False
    if os.path.samefile(first, second):
        return True
    with open(first, "rb") as one, open(second, "rb") as other:
        while chunk := one.read(_CHUNK):
            if chunk != other.read(_CHUNK):
                return False
    return True
