"""Where in a checkpoint the weights are: trainers put the state_dict under keys of their own, some of them twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import inert_unpickler

if TYPE_CHECKING:
    import torch

_AVERAGED = "ema"
"""A word in the names of entries that hold a running average: ema, model_ema, ema_state_dict, params_ema ..."""
_RAW = ("state_dict", "model_state_dict", "model", "module", "params", "net")
_DEEPEST = 5
"""How many mappings lie around a state_dict at most; a pickle can hold a mapping that holds itself."""


@dataclass(frozen=True)
class State:
    """A state_dict, or a pickled module's."""

    tensors: Mapping[str, torch.Tensor]
    epsilons: Mapping[str, float]
    kind: str = ""
    """the class of a pickled module, as module.name"""
    averaged: bool = False
    """whether it is a running average that the checkpoint keeps beside other weights"""


def find(value: object, depth: int = 0) -> State | None:
    """The weights in a checkpoint, or in an entry of one; None if it has none.

    A running average comes before the weights that it is of, and an entry with a name that trainers use before others.
    Else it is the one mapping that holds tensors, wherever it lies; where there are several, all of them, each below
    its place. (Keys that are numbers are those of an optimiser's state.)
    """
    import torch

    if isinstance(value, inert_unpickler.Inert):
        tensors = inert_unpickler.state_dict(value)
        return State(tensors, inert_unpickler.epsilons(value), value.kind) if tensors else None
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return None
    entries = {key: state for key, each in value.items() if isinstance(key, str) and (state := find(each, depth + 1))}
    averaged = next((key for key in entries if _AVERAGED in key.lower().split("_")), None)
    if averaged is not None:
        return replace(entries[averaged], averaged=entries[averaged].averaged or len(entries) > 1)
    named = next((key for key in _RAW if key in entries), None)
    if named is not None:
        return entries[named]
    own = {str(key): each.detach() for key, each in value.items() if isinstance(each, torch.Tensor)}
    return _together(({"": State(own, {})} if own else {}) | entries)


def _together(found: Mapping[str, State]) -> State | None:
    """Several state_dicts as one, each below its place; None for none."""
    if len(found) < 2:
        return next(iter(found.values()), None)
    tensors: dict[str, torch.Tensor] = {}
    epsilons: dict[str, float] = {}
    for place, state in found.items():
        start = f"{place}." if place else ""
        tensors |= {start + key: each for key, each in state.tensors.items()}
        epsilons |= {(start + key).rstrip("."): eps for key, eps in state.epsilons.items()}
    return State(tensors, epsilons, next((state.kind for state in found.values() if state.kind), ""))
