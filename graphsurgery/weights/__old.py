"""Weights for a block from a file: .safetensors, .npz, .pt and .pth. Nothing in a file is ever executed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .block import Block
from .errors import BlockError, MissingDependency, WeightsError
from .featuremap import FeatureMap

Array = np.ndarray[Any, Any]
_IGNORED = "num_batches_tracked"


def split(spec: str) -> tuple[Path, str]:
    """FILE[:PREFIX] -> (file, prefix). A colon that belongs to the file's own name is left alone."""
    if os.path.exists(spec):
        return Path(spec), ""
    name, colon, prefix = spec.rpartition(":")
    return (Path(name), prefix) if colon and len(name) > 1 else (Path(spec), "")


def read(path: Path, prefix: str = "") -> dict[str, Array]:
    """The arrays of a file whose keys start with ``prefix.``, without it. WeightsError if it cannot be read safely."""
    if not os.path.isfile(path):
        raise WeightsError(f"{path} is a directory" if os.path.isdir(path) else f"there is no weights file {path}")
    if not os.access(path, os.R_OK):
        raise WeightsError(f"{path} may not be read: no permission")
    readers = {".safetensors": _safetensors, ".npz": _npz, ".pt": _torch, ".pth": _torch}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise WeightsError(f"{path.name} is none of the weights files that are read: {', '.join(readers)}")
    arrays = reader(path)
    start = prefix.rstrip(".") + "." if prefix else ""
    found = {key[len(start) :]: value for key, value in arrays.items() if key.startswith(start)}
    if not found and prefix:
        raise WeightsError(f"{path.name} has no weights under {prefix!r}; its keys start with {_starts(arrays)}")
    for key, values in found.items():
        if not _is_numeric(values):
            raise WeightsError(f"{key} in {path.name} holds {values.dtype} values, not numbers")
    return found


def _starts(keys: Iterable[str]) -> str:
    starts = list(dict.fromkeys(key.rpartition(".")[0] or key for key in keys))
    return ", ".join(starts[:6]) + (" ..." if len(starts) > 6 else "") if starts else "nothing: it is empty"


def _safetensors(path: Path) -> dict[str, Array]:
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise MissingDependency(
            "reading .safetensors needs the package safetensors: pip install graphsurgery[weights]"
        ) from None
    try:
        return dict(load_file(path))
    except Exception as error:  # its own, OSError, and numpy's for element types that numpy lacks
        raise WeightsError(f"{path.name} is not a readable safetensors file: {_one_line(error)}") from None


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: np.asarray(archive[key]) for key in archive.files}
    except Exception:  # numpy, zipfile and zlib each have their own
        raise WeightsError(f"{path.name} is not an .npz archive of plain arrays") from None


def _torch(path: Path) -> dict[str, Array]:
    try:
        import torch
    except ImportError:
        raise MissingDependency(f"reading {path.suffix} needs torch: pip install graphsurgery[torch]") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # of old kinds of pickles: they are read, or refused below
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own; all mean that it is not plain weights
        told = str(error).lower()
        would_run = any(word in told for word in ("unsupported global", "reduce", "can only build", "instantiate"))
        reason = "it would execute code when loaded" if would_run else "it is damaged, or no PyTorch file at all"
        raise WeightsError(
            f"{path.name} is not a file of plain weights ({reason}); save the state_dict() instead"
        ) from None
    for inner in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(inner), Mapping):
            loaded = loaded[inner]
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path.name} holds a {type(loaded).__name__}, not a state_dict")
    tensors = {str(key): value.detach() for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    sparse = next((key for key, value in tensors.items() if value.layout != torch.strided or value.is_quantized), None)
    if sparse is not None:
        raise WeightsError(f"{sparse} in {path.name} is a sparse or quantised tensor; save it as a plain one")
    wide = (torch.float64, torch.complex64, torch.complex128)
    return {key: (value if value.dtype in wide else value.float()).numpy() for key, value in tensors.items()}


def _is_numeric(values: Array) -> bool:
    """Whether an array holds real numbers; the narrow float types of ml_dtypes are among them."""
    return values.dtype.kind in "fiub" or (values.dtype.kind == "V" and values.dtype.isbuiltin == 2)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def fit(block: Block, feature: FeatureMap, arrays: Mapping[str, Array], source: str) -> tuple[Block, dict[str, Array]]:
    """The block with the hyper-parameters that the weights imply, and the weights by official key.

    WeightsError, in the user's terms, for a missing, extra or mis-shaped key.
    """
    given: dict[str, tuple[str, Array]] = {}
    for key, values in arrays.items():
        if key.rpartition(".")[2] == _IGNORED:
            continue
        official = block.official_key(key)
        if official in given:
            raise WeightsError(f"{source} gives {official} twice, as {given[official][0]} and as {key}")
        given[official] = (key, values)
    shapes = {key: tuple(values.shape) or (1,) for key, (_, values) in given.items()}
    try:
        inferred = block.settings_from_weights(shapes)
        block = block.with_values(**inferred) if inferred else block
        block.check(feature)
    except BlockError as error:
        raise WeightsError(f"the weights in {source} do not fit: {error}") from None
    wanted = block.parameters(feature)
    missing = [key for key in wanted if key not in given]
    extra = [key for official, (key, _) in given.items() if official not in wanted]
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [
            f"has {', '.join(extra)}, which the block does not"
        ] * bool(extra)
        raise WeightsError(f"{source} does not fit {block.spelled} at {feature.label}: it {' and '.join(parts)}")
    return block, {key: _shaped(block, feature, *given[key], shape) for key, shape in wanted.items()}


def _shaped(block: Block, feature: FeatureMap, key: str, values: Array, shape: tuple[int, ...]) -> Array:
    """The array in the wanted shape: a linear layer's [o, i] is a 1x1 convolution's [o, i, 1, 1]."""
    if _squeezed(values.shape) == _squeezed(shape) and values.size == int(np.prod(shape)):
        return values.reshape(shape)
    made_for = _channels_of(block, feature, key, values.shape, shape)
    if made_for is not None:
        raise WeightsError(f"{feature.label} has {feature.channels} channels; {key} is made for {made_for}")
    raise WeightsError(
        f"{key} has the shape {list(values.shape)}; {block.spelled} at {feature.label} needs {list(shape)}"
    )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    last = len(shape)
    while last > 1 and shape[last - 1] == 1:
        last -= 1
    return shape[:last]


def _channels_of(
    block: Block, feature: FeatureMap, key: str, found: tuple[int, ...], wanted: tuple[int, ...]
) -> int | None:
    """The number of channels that would make the wanted shape the found one; None if channels alone cannot."""
    for size in dict.fromkeys(found):
        if size == feature.channels:
            continue
        other = replace(feature, channels=size)
        try:
            block.check(other)
            shapes = block.parameters(other)
        except (BlockError, ValueError):
            continue
        official = block.official_key(key)
        if official in shapes and _squeezed(shapes[official]) == _squeezed(found):
            return size
    return None
