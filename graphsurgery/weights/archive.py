"""Zip archives of arrays, in which a few kilobytes can stand for as many gigabytes."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

from ..errors import WeightsError
from ..modelfile import limits


def check_unpacked(archive: ZipFile, path: Path) -> None:
    """WeightsError, before anything is unpacked, for an archive whose entries are out of proportion to its size."""
    unpacked = sum(each.file_size for each in archive.infolist())
    if unpacked > max(limits.UNPACKED_BYTES, limits.UNPACKED_RATIO * os.path.getsize(path)):
        raise WeightsError(f"{path.name} has {os.path.getsize(path):,} bytes and would unpack to {unpacked:,}")
