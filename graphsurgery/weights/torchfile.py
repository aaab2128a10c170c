"""PyTorch files: state_dicts, and the whole checkpoints that trainers write."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingDependency, WeightsError
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]

_AVERAGED = ("state_dict_ema", "model_ema", "ema", "ema_state_dict")
_RAW = ("state_dict", "model_state_dict", "model")
_BUILT_BY_ULTRALYTICS = re.compile(r"(?:module\.)?(?:model\.)+0\.bn\.running_var")


def read(path: Path) -> Checkpoint:
    """The weights of a checkpoint: the running average (EMA) where it keeps one, as trainers' own loaders do.

    Modules that were pickled whole are read with :mod:`.inert`, which runs nothing. WeightsError if there are none.
    """
    try:
        import torch
    except ImportError:
        raise MissingDependency(f"reading {path.suffix} needs torch: pip install graphsurgery[torch]") from None
    loaded, whole = _loaded(path)
    states = {key: _State.of(value) for key, value in _candidates(loaded)}
    found = {key: state for key, state in states.items() if state is not None}
    if not found:
        if whole:
            raise WeightsError(
                f"{path.name} has no weights that can be read without running the code it names; save the "
                "state_dict() instead"
            )
        if not isinstance(loaded, Mapping):
            raise WeightsError(f"{path.name} holds a {type(loaded).__name__}, not a state_dict")
    key, state = next(iter(found.items()), ("", _State({}, {}, "")))
    averaged = key in _AVERAGED and any(each in found for each in _RAW)
    notes = (f"the averaged weights (EMA) of {path.name} were taken, as its trainer's own loader does",) * averaged
    tensors = state.tensors
    sparse = next((key for key, value in tensors.items() if value.layout != torch.strided or value.is_quantized), None)
    if sparse is not None:
        raise WeightsError(f"{sparse} in {path.name} is a sparse or quantised tensor; save it as a plain one")
    return Checkpoint(
        path.name,
        {key: _array(value) for key, value in tensors.items()},
        state.epsilons,
        ultralytics=state.kind.startswith("ultralytics.") or any(map(_BUILT_BY_ULTRALYTICS.fullmatch, tensors)),
        notes=notes,
    )


class _State:
    """A state_dict, or a pickled module's."""

    def __init__(self, tensors: dict[str, torch.Tensor], epsilons: dict[str, float], kind: str) -> None:
        self.tensors, self.epsilons, self.kind = tensors, epsilons, kind

    @classmethod
    def of(cls, value: object) -> _State | None:
        """The weights in an entry of a checkpoint; None if it has none."""
        import torch

        from . import inert

        if isinstance(value, inert.Inert):
            tensors = inert.state_dict(value)
            return cls(tensors, inert.epsilons(value), value.kind) if tensors else None
        if not isinstance(value, Mapping):
            return None
        if isinstance(value.get("module"), Mapping):  # the averaged model of RT-DETR's own trainer
            return cls.of(value["module"])
        tensors = {str(key): each.detach() for key, each in value.items() if isinstance(each, torch.Tensor)}
        return cls(tensors, {}, "") if tensors else None


def _candidates(loaded: object) -> Iterator[tuple[str, object]]:
    """Where in a checkpoint the weights may be, the best first."""
    if isinstance(loaded, Mapping):
        yield from ((key, loaded[key]) for key in (*_AVERAGED, *_RAW) if key in loaded)
    yield "", loaded


def _loaded(path: Path) -> tuple[object, bool]:
    """The content of a file, and whether it holds more than plain weights."""
    import torch

    try:
        pickled = _is_checkpoint(path)
        with warnings.catch_warnings(action="ignore"):  # of old kinds of pickles: they are read, or refused below
            try:
                return torch.load(path, map_location="cpu", weights_only=True), False
            except pickle.UnpicklingError:
                if not pickled:
                    raise
                from . import inert

                return torch.load(path, map_location="cpu", pickle_module=inert, weights_only=False), True
    except WeightsError:
        raise
    except Exception as error:  # pickle, zip and torch each have their own; all mean that it is not plain weights
        told = str(error).lower()
        would_run = any(word in told for word in ("unsupported global", "reduce", "can only build", "instantiate"))
        reason = "it would execute code when loaded" if would_run else "it is damaged, or no PyTorch file at all"
        raise WeightsError(
            f"{path.name} is not a file of plain weights ({reason}); save the state_dict() instead"
        ) from None


def _is_checkpoint(path: Path) -> bool:
    """Whether a file is a pickle in torch's zip format. torch hands other zip files to loaders that run what is in
    them.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        raise WeightsError(
            f"{path.name} is a TorchScript archive, which is a program; save the state_dict() of the module instead"
        )
    return "data.pkl" in names


def _array(tensor: torch.Tensor) -> Array:
    import torch

    narrow = tensor.is_floating_point() and tensor.dtype != torch.float64  # numpy lacks some of these types
    return np.asarray((tensor.float() if narrow else tensor).numpy())
