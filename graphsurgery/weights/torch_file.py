"""PyTorch files: state_dicts, and the whole checkpoints that trainers write."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from ..errors import MissingDependency, WeightsError
from ..feature_map import Array
from ..messages import listed
from ..modelfile import limits
from . import inert_unpickler, pickle_scan, state_dict_search
from .archive import check_unpacked
from .checkpoint import Checkpoint
from .state_dict_search import State

if TYPE_CHECKING:
    import torch

_BUILT_BY_ULTRALYTICS = re.compile(r"(?:module\.)?(?:model\.)+0\.bn\.running_var")
_MOST = 12
_PICKLE = "data.pkl"
_PICKLES_BEFORE_1_6 = 5
"""at the beginning of a file of the format before: its mark, version, system, content and names of its payloads"""
_COSTLY = {"builtins.bytearray", "__builtin__.bytearray", "_codecs.encode"}
"""what torch calls for a file of plain weights, and what can take as much memory or time as a number or text says"""


def read(path: Path) -> Checkpoint:
    """The weights of a checkpoint: the running average (EMA) where it keeps one, as trainers' own loaders do.

    Modules that were pickled whole are read with :mod:`.inert_unpickler`, which runs nothing. WeightsError if there are
    none.
    """
    found = state(path)
    return Checkpoint(
        path.name,
        arrays(found, path.name),
        found.epsilons,
        ultralytics=found.kind.startswith("ultralytics.") or any(map(_BUILT_BY_ULTRALYTICS.fullmatch, found.tensors)),
        notes=notes(found, path.name),
        description=found.description,
    )


def state(path: Path) -> State:
    """The same as torch's tensors, with the pickled module that they are of."""
    try:
        import torch  # noqa: F401 - for those below
    except ImportError:
        raise MissingDependency(f'reading {path.suffix} needs torch: pip install "graphsurgery[torch]"') from None
    loaded, whole = _loaded(path)
    try:
        found = state_dict_search.find(loaded)
    except WeightsError as error:
        raise WeightsError(f"{path.name} {error.message}") from None
    if found is None:
        raise WeightsError(_nothing(path.name, loaded, whole))
    return found


def arrays(state: State, name: str) -> dict[str, Array]:
    """The tensors of a checkpoint, which messages call ``name``, as arrays on the same memory."""
    return {key: as_array(value, f"{key} in {name}") for key, value in state.tensors.items()}


def notes(state: State, name: str) -> tuple[str, ...]:
    """What the user should know of which weights were taken."""
    note = f"the averaged weights (EMA) of {name} were taken, as its trainer's own loader does"
    return (note,) * state.averaged


def content(path: Path) -> object:
    """What a file holds; of what is more than plain weights, an object that does nothing for each that it names.

    WeightsError if it cannot be read safely.
    """
    return _loaded(path)[0]


def _nothing(name: str, loaded: object, whole: bool) -> str:
    """What to say of a file without weights."""
    if whole:
        return (
            f"{name} has no weights that can be read without running the code it names; save the state_dict() instead"
        )
    if not isinstance(loaded, Mapping):
        return f"{name} holds a {type(loaded).__name__}, not a state_dict"
    keys = [state_dict_search.as_key(key)[: limits.CHECKPOINT_KEY] for key in loaded]
    return f"{name} has no weights in it; " + (f"its entries are {listed(keys, _MOST)}" if keys else "it is empty")


def _loaded(path: Path) -> tuple[object, bool]:
    """The content of a file, and whether it holds more than plain weights."""
    try:
        import torch
    except ImportError:
        raise MissingDependency(f'reading {path.suffix} needs torch: pip install "graphsurgery[torch]"') from None
    try:
        pickled = _is_checkpoint(path)
        costly = _named(path, pickled) & (_COSTLY | _built_by_torch())
        if costly and not pickled:
            raise pickle.UnpicklingError(f"unsupported global {min(costly)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old kinds of pickles: they are read, or refused below
            try:
                if not costly:
                    return torch.load(path, map_location="cpu", weights_only=True), False
            except pickle.UnpicklingError:
                if not pickled:
                    raise
            return torch.load(path, map_location="cpu", pickle_module=inert_unpickler, weights_only=False), True
    except WeightsError:
        raise
    except Exception as error:  # pickle, zip and torch each have their own; all mean that it is not plain weights
        message = str(error).lower()
        would_run = any(word in message for word in ("unsupported global", "reduce", "can only build", "instantiate"))
        reason = "it would execute code when loaded" if would_run else "it is damaged, or no PyTorch file at all"
        raise WeightsError(
            f"{path.name} is not a file of plain weights ({reason}); save the state_dict() instead"
        ) from None


def _built_by_torch() -> set[str]:
    """The globals that this process told torch to build from files of plain weights; here nothing is built."""
    from torch.serialization import get_safe_globals

    pairs = (each if isinstance(each, tuple) else (each, "") for each in get_safe_globals())
    return {name or f"{known.__module__}.{known.__qualname__}" for known, name in pairs}


def _is_checkpoint(path: Path) -> bool:
    """Whether a file is a pickle in torch's zip format. torch hands other zip files to loaders that run what is in
    them.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
        check_unpacked(archive, path)
    if "constants.pkl" in names:
        raise WeightsError(
            f"{path.name} is a TorchScript archive, which is a program; save the state_dict() of the module instead"
        )
    return _PICKLE in names


def named(path: Path) -> set[str]:
    """The globals that a file of torch names, as ``module.name``; nothing is loaded. WeightsError for a file that
    :func:`read` would refuse for them.
    """
    return _named(path, _is_checkpoint(path))


def _named(path: Path, pickled: bool) -> set[str]:
    """The globals that the pickles of a file name; see pickle_scan.py for what is refused."""
    try:
        if pickled:
            with zipfile.ZipFile(path) as archive:
                inside = [each for each in archive.infolist() if each.filename.rpartition("/")[2] == _PICKLE]
                return set().union(*(pickle_scan.scan(io.BytesIO(archive.read(each))) for each in inside))
        names: set[str] = set()
        with path.open("rb") as stream, contextlib.suppress(ValueError):  # what is no pickle is refused by torch
            for _ in range(_PICKLES_BEFORE_1_6):
                names |= pickle_scan.scan(stream)
        return names
    except WeightsError as error:
        raise WeightsError(f"{path.name} cannot be read: {error.message}") from None


def as_array(tensor: torch.Tensor, named: str) -> Array:
    """The tensor's own memory as an array: no value is copied, however large the tensor says it is."""
    import torch

    if tensor.is_meta:
        raise WeightsError(
            f"{named} has a shape and no values (torch's device 'meta'); save the model after loading it"
        )
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise WeightsError(f"{named} is a sparse or quantised tensor; save it as a plain one")
    kind = str(tensor.dtype).removeprefix("torch.")
    try:
        if hasattr(ml_dtypes, kind):  # numpy lacks bfloat16 and the narrower ones
            whole = {1: torch.uint8, 2: torch.int16}[tensor.dtype.itemsize]
            values: Array = tensor.view(whole).numpy().view(getattr(ml_dtypes, kind))
            return values
        return np.asarray(tensor.numpy())
    except (RuntimeError, TypeError, KeyError):  # of what a pickle can set: the bit of a negated view, odd types
        raise WeightsError(
            f"{named} is a tensor of {kind} that numpy has no form for; save it as a plain one"
        ) from None
