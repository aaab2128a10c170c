"""Where in a checkpoint the weights are: trainers put the state_dict under keys of their own, some of them twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..messages import brief
from ..modelfile import limits
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
    description: Mapping[str, str] = field(default_factory=dict)
    """of the pickled modules, see inert_unpickler.py"""
    kind: str = ""
    """the class of a pickled module, as module.name"""
    module: inert_unpickler.Inert | None = None
    """the pickled module that it is of; None for a state_dict, and for several of them together"""
    averaged: bool = False
    """whether it is a running average that the checkpoint keeps beside other weights"""


def find(value: object) -> State | None:
    """The weights in a checkpoint, or in an entry of one; None if it has none.

    A running average comes before the weights that it is of, and an entry with a name that trainers use before others.
    Else it is the one mapping that holds tensors, wherever it lies; where there are several, all of them, each below
    its place. (Keys that are numbers are those of an optimiser's state.) WeightsError for a file that stands for more
    than it holds: mappings that share a mapping, each below a place of its own.
    """
    return _find(value, 0, {})


def _find(value: object, depth: int, known: dict[tuple[int, int], State | None]) -> State | None:
    """``known``: what was found, by id and depth, so that what is shared is looked at once."""
    if not isinstance(value, inert_unpickler.Inert | Mapping) or depth > _DEEPEST:
        return None
    place = (id(value), depth)
    if place not in known:
        known[place] = None if isinstance(value, Mapping) else _of_module(value)
        if isinstance(value, Mapping):
            known[place] = _of_mapping(value, depth, known)
    return known[place]


def _of_module(value: inert_unpickler.Inert) -> State | None:
    tensors = inert_unpickler.state_dict(value)
    if not tensors:
        return None
    return State(tensors, inert_unpickler.epsilons(value), inert_unpickler.description(value), value.kind, value)


def _of_mapping(value: Mapping[object, object], depth: int, known: dict[tuple[int, int], State | None]) -> State | None:
    import torch

    inner = ((key, each) for key, each in value.items() if isinstance(key, str))
    entries = {key: state for key, each in inner if (state := _find(each, depth + 1, known))}
    averaged = next((key for key in entries if _AVERAGED in key.lower().split("_")), None)
    if averaged is not None:
        return replace(entries[averaged], averaged=entries[averaged].averaged or len(entries) > 1)
    named = next((key for key in _RAW if key in entries), None)
    if named is not None:
        return entries[named]
    own = {as_key(key): each.detach() for key, each in value.items() if isinstance(each, torch.Tensor)}
    return _together(({"": State(own, {})} if own else {}) | entries)


def as_key(key: object) -> str:
    """The key of a mapping in a pickle, which can be anything, as text."""
    return key if isinstance(key, str) else brief(key)


def _together(found: Mapping[str, State]) -> State | None:
    """Several state_dicts as one, each below its place; None for none."""
    if len(found) < 2:
        return next(iter(found.values()), None)
    if sum(len(state.tensors) for state in found.values()) > limits.CHECKPOINT_ENTRIES:
        raise WeightsError(f"holds more than {limits.CHECKPOINT_ENTRIES:,} tensors, which no detector does")
    tensors: dict[str, torch.Tensor] = {}
    epsilons: dict[str, float] = {}
    description: dict[str, str] = {}
    for place, state in found.items():
        start = f"{place}." if place else ""
        if len(start) + max(map(len, state.tensors)) > limits.CHECKPOINT_KEY:
            raise WeightsError(f"has a key of more than {limits.CHECKPOINT_KEY:,} characters")
        tensors |= {start + key: each for key, each in state.tensors.items()}
        epsilons |= {(start + key).rstrip("."): eps for key, eps in state.epsilons.items()}
        description |= {(start + key).rstrip("."): text for key, text in state.description.items()}
    return State(tensors, epsilons, description, next((state.kind for state in found.values() if state.kind), ""))
