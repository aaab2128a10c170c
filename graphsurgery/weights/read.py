"""The reader of each kind of weights file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingDependency, WeightsError
from .checkpoint import Checkpoint

Array = np.ndarray[Any, Any]


def split(spec: str) -> tuple[Path, str]:
    """FILE[:PREFIX] -> (file, prefix). A colon that belongs to the file's own name is left alone."""
    if os.path.exists(spec):
        return Path(spec), ""
    name, colon, prefix = spec.rpartition(":")
    return (Path(name), prefix) if colon and len(name) > 1 else (Path(spec), "")


def read(path: Path) -> Checkpoint:
    """Everything in a file. WeightsError if it cannot be read safely."""
    if not os.path.isfile(path):
        raise WeightsError(f"{path} is a directory" if os.path.isdir(path) else f"there is no weights file {path}")
    if not os.access(path, os.R_OK):
        raise WeightsError(f"{path} may not be read: no permission")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise WeightsError(f"{path.name} is none of the weights files that are read: {', '.join(_READERS)}")
    return reader(path)


def _safetensors(path: Path) -> Checkpoint:
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise MissingDependency(
            'reading .safetensors needs the package safetensors: pip install "graphsurgery[weights]"'
        ) from None
    try:
        return Checkpoint(path.name, dict(load_file(path)))
    except Exception as error:  # its own, OSError, and numpy's for element types that numpy lacks
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path.name} is not a readable safetensors file: {reason}") from None


def _npz(path: Path) -> Checkpoint:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return Checkpoint(path.name, {key: np.asarray(archive[key]) for key in archive.files})
    except Exception:  # numpy, zipfile and zlib each have their own
        raise WeightsError(f"{path.name} is not an .npz archive of plain arrays") from None


def _torch(path: Path) -> Checkpoint:
    from . import torch_file

    return torch_file.read(path)


def _onnx(path: Path) -> Checkpoint:
    from . import onnx_file

    return onnx_file.read(path)


_READERS: dict[str, Callable[[Path], Checkpoint]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".pt": _torch,
    ".pth": _torch,
    ".tar": _torch,  # model_best.pth.tar of timm and of torch's own examples: not a tar archive
    ".ckpt": _torch,
    ".bin": _torch,
    ".onnx": _onnx,
}
