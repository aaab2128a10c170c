"""The reader of each kind of weights file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import WeightsError
from ..userblocks import NO_TRUST, Trust
from . import onnx_file, torch_file
from .archive import check_unpacked
from .checkpoint import Checkpoint
from .safetensors_package import safetensors


def split(spec: str) -> tuple[Path, str]:
    """FILE[:PREFIX] -> (file, prefix). A colon that belongs to the file's own name is left alone."""
    if os.path.exists(spec):
        return Path(spec), ""
    name, colon, prefix = spec.rpartition(":")
    return (Path(name), prefix) if colon and len(name) > 1 else (Path(spec), "")


def read(path: Path, trust: Trust = NO_TRUST) -> Checkpoint:
    """Everything in a file. WeightsError if it cannot be read safely.

    ``trust``: the user's own PyTorch modules that may be imported, to read the weights of one that was inserted in an
    ONNX file.
    """
    check_file(path)
    suffix = path.suffix.lower()
    if suffix == _ONNX:
        return onnx_file.read(path, trust)
    if suffix not in _READERS:
        raise WeightsError(f"{path.name} is none of the weights files that are read: {', '.join([*_READERS, _ONNX])}")
    return _READERS[suffix](path)


def check_file(path: Path) -> None:
    """WeightsError if there is no such file, or it may not be read."""
    if not os.path.isfile(path):
        raise WeightsError(f"{path} is a directory" if os.path.isdir(path) else f"there is no weights file {path}")
    if not os.access(path, os.R_OK):
        raise WeightsError(f"{path} may not be read: no permission")


def is_checkpoint(path: Path) -> bool:
    """Whether a file is one of PyTorch's, by its name."""
    return _READERS.get(path.suffix.lower()) is torch_file.read


def _safetensors(path: Path) -> Checkpoint:
    reader = safetensors("numpy", "reading .safetensors")
    try:
        return Checkpoint(path.name, dict(reader.load_file(path)))
    except Exception as error:  # its own, OSError, and numpy's for element types that numpy lacks
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path.name} is not a readable safetensors file: {reason}") from None


def _npz(path: Path) -> Checkpoint:
    try:
        with np.load(path, allow_pickle=False) as archive:
            check_unpacked(archive.zip, path)
            return Checkpoint(path.name, {key: np.asarray(archive[key]) for key in archive.files})
    except WeightsError:
        raise
    except Exception:  # numpy, zipfile and zlib each have their own
        raise WeightsError(f"{path.name} is not an .npz archive of plain arrays") from None


_READERS: dict[str, Callable[[Path], Checkpoint]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
    # model_best.pth.tar of timm and of torch's own examples is not a tar archive
    **dict.fromkeys((".pt", ".pth", ".tar", ".ckpt", ".bin"), torch_file.read),
}
_ONNX = ".onnx"
