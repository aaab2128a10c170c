"""The PyTorch side: copies of a module that are run on what the file is fed with, in one element type or another."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...entry_points import ForeignError, foreign_code
from ...errors import RequestError
from ...feature_map import Array
from ..detaching import detach
from ..dry_run import tensors_in
from ..hooks import hooks_in

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Output:
    """One tensor that a module gives."""

    place: str
    """where it stands in what the module gives: ``""`` for the whole of it, ``[0]``, ``['logits']``"""
    value: Array


class Live:
    """A module, of which copies are run; it is not changed itself."""

    def __init__(self, module: nn.Module, prepare: Callable[[nn.Module], None] = lambda module: None) -> None:
        """``prepare`` changes each copy before it is run."""
        self._module = module
        self._prepare = prepare
        self._copies: dict[torch.dtype, nn.Module] = {}

    @property
    def module(self) -> nn.Module:
        """The module as it was given."""
        return self._module

    def prepared(self, prepare: Callable[[nn.Module], None]) -> Live:
        """The same module, changed by something else before it is run."""
        return Live(self._module, prepare)

    def bare(self) -> Live | None:
        """The module without its attached blocks; None where it has none."""
        if not any(True for _ in hooks_in(self._module)):
            return None
        without = copied(self._module)
        detach(without)
        return Live(without, self._prepare)

    def copy(self, dtype: torch.dtype) -> nn.Module:
        """A copy in an element type, in evaluation mode, on the CPU. RequestError if there can be none."""
        if dtype not in self._copies:
            made = copied(self._module).cpu().float().to(dtype).eval()
            self._prepare(made)
            _forget_anchors(made)
            self._copies[dtype] = made
        return self._copies[dtype]

    def run(self, feeds: Feeds, dtype: torch.dtype = torch.float32) -> list[Output]:
        """What the module gives. RequestError where it does not take what the file takes."""
        model = self.copy(dtype)
        args, kwargs = arguments(model, feeds, dtype)
        try:
            with torch.no_grad(), foreign_code():
                given = model(*args, **kwargs)
        except ForeignError as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            sentence = f"the module fails on what the file takes ({shapes}): {error}"
            raise RequestError(sentence[:400], option="module") from None
        return [Output("".join(f"[{step!r}]" for step in place), _array(value)) for place, value in tensors_in(given)]


def copied(module: nn.Module) -> nn.Module:
    """A deep copy. RequestError if the module cannot be copied."""
    try:
        with foreign_code():
            return copy.deepcopy(module)
    except ForeignError as error:
        raise RequestError(f"the module cannot be copied: {error}", option="module") from None


def arguments(model: nn.Module, feeds: Feeds, dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What a file is fed with as arguments of a module: by name, where its ``forward`` has all the names, else in
    order.
    """
    values = {name: _tensor(array, dtype) for name, array in feeds.items()}
    known = inspect.signature(model.forward).parameters
    named = len(values) > 1 and all(name in known for name in values)
    return ([], values) if named else (list(values.values()), {})


def values(outputs: Sequence[Output]) -> list[Array]:
    """The arrays alone."""
    return [each.value for each in outputs]


def _tensor(array: Array, dtype: torch.dtype) -> Tensor:
    if array.dtype.kind in "fV":  # V: bfloat16 and the like, which torch does not read from numpy
        return torch.from_numpy(np.ascontiguousarray(array.astype(np.float32))).to(dtype)
    return torch.from_numpy(np.ascontiguousarray(array))


def _array(tensor: Tensor) -> Array:
    plain = tensor.detach()
    found: Array = (plain.float() if plain.dtype is torch.bfloat16 else plain).numpy()
    return found


def _forget_anchors(model: nn.Module) -> None:
    """Anchors that a head of Ultralytics keeps for an image size, and that are in the element type of before."""
    for module in model.modules():
        state: dict[str, Any] = vars(module)
        if "anchors" in state:
            state.update({name: None for name in ("shape", "shapes") if name in state})
