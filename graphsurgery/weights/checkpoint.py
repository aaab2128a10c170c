"""What a file of trained weights holds, whatever its format, and what a block is with weights out of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..blocks.block import Array, Block
from ..errors import WeightsError
from ..messages import closest, listed
from ..modelfile import limits

WRAPPERS = r"(?:(?:module|_orig_mod|model)\.)*"
"""What DataParallel, torch.compile, and trainers that keep a model as an attribute put before its keys."""
COUNTER = "num_batches_tracked"
"""Of a BatchNorm in a state_dict; nothing that the block computes with."""
_AROUND_ALL = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Checkpoint:
    """Arrays by key, and what else the file tells of the modules that they belong to."""

    name: str
    """of the file, with the prefix as the user gave it"""
    arrays: Mapping[str, Array]
    epsilons: Mapping[str, float] = field(default_factory=dict)
    """module path of a BatchNorm -> its epsilon, where the file says it (a state_dict does not)"""
    ultralytics: bool = False
    """whether the model seems to have been built by Ultralytics, which sets the epsilon of every BatchNorm to 1e-3"""
    notes: tuple[str, ...] = ()
    """what the user should know of how the file was read"""
    inserted: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    """id of an insertion in an ONNX file -> (block, hyper-parameters)"""
    exported: bool = False
    """whether an exporter wrote it, which may have folded parameters into others"""
    spare: frozenset[str] = frozenset()
    """keys in such a file that are nothing of their own: a second call's, an alias"""
    unbiased: frozenset[str] = frozenset()
    """paths of layers in such a file that have no bias: they had none, or only zeros"""
    description: Mapping[str, str] = field(default_factory=dict)
    """what a pickled module says of itself: path of a module -> its class as module.name, path of an attribute -> its
    value; "" is the module itself. Of a graph that was exported: the modules that are an activation"""
    whole: Checkpoint | None = None
    """the file that this is a part of"""

    def under(self, prefix: str) -> Checkpoint:
        """The part whose keys start with ``prefix.``, without it; "" is everything.

        A wrapper's name before every key (``module.``, ``_orig_mod.``, ``model.``) need not be given. WeightsError
        if nothing lies there, or something that is not numbers.
        """
        starts = self._starts(prefix)
        arrays: Mapping[str, Array] = _without(self.arrays, starts)
        inner = prefix.strip(".")
        here = {"": self.inserted[inner]} if inner in self.inserted else {}
        if not arrays and prefix and not here:
            places = dict.fromkeys(key.rpartition(".")[0] or key for key in self.arrays)
            known = listed(places) or "nothing: it is empty"
            raise WeightsError(
                f"{self.name} has no weights under {prefix!r}; its keys start with {known}",
                candidates=closest(prefix, places),
            )
        for key, values in arrays.items():
            if not is_numeric(values):
                raise WeightsError(f"{key} in {self.name} holds {values.dtype} values, not numbers")
            if not may_be_of_a_block(values):
                raise WeightsError(f"{key} in {self.name} has {values.size:,} values, more than any block has")
        return replace(
            self,
            name=self.name + (f":{prefix}" if prefix else ""),
            arrays=arrays,
            epsilons=_inside(self.epsilons, starts),
            description=_inside(self.description, starts),
            inserted=here,
            spare=frozenset(_without(dict.fromkeys(self.spare), starts)),
            unbiased=frozenset(_without(dict.fromkeys(self.unbiased), starts)),
            whole=self,
        )

    def _starts(self, prefix: str) -> str:
        """What the keys under a prefix really start with."""
        if not prefix.strip("."):
            around = (word for word in _AROUND_ALL if self.arrays and all(key.startswith(word) for key in self.arrays))
            return next(around, "")
        start = prefix.strip(".") + "."
        if any(key.startswith(start) for key in self.arrays):
            return start
        wrapped = re.compile(WRAPPERS + re.escape(start))
        found = {match.group() for key in self.arrays if (match := wrapped.match(key))}
        return min(found, key=len) if found else start


@dataclass(frozen=True)
class Fitted:
    """A block as the weights want it, its parameters by official key, and what the user should know."""

    block: Block
    arrays: dict[str, Array]
    warnings: tuple[str, ...]
    source: str = ""
    """the file, and the prefix in it, that the parameters come from"""


def _without(entries: Mapping[str, Any], start: str) -> dict[str, Any]:
    return {key[len(start) :]: entries[key] for key in entries if key.startswith(start)}


def _inside(entries: Mapping[str, Any], start: str) -> dict[str, Any]:
    """The entries of the module whose keys begin with ``start``, and of those in it, by their paths within."""
    own = {"": entries[start[:-1]]} if start[:-1] in entries else {}
    return {**own, **_without(entries, start)}


def may_be_of_a_block(values: Array) -> bool:
    """Whether an array is no larger than the weights of a block can be. One value can stand for billions: a view."""
    return values.size <= limits.WEIGHT_ELEMENTS


def without_wrapper(path: str) -> str:
    """A key, or the path of a module, without what DataParallel and torch.compile put before it."""
    while path.startswith(_AROUND_ALL):
        path = path.partition(".")[2]
    return path


def owner(key: str, paths: Collection[str]) -> str:
    """The one of some paths that a key lies under, the outermost of several; "" if it lies under none."""
    end = key.find(".")
    while end >= 0:
        if key[:end] in paths:
            return key[:end]
        end = key.find(".", end + 1)
    return ""


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the sizes of 1 at its end: equal for a linear layer and a 1x1 convolution."""
    last = max((axis for axis, size in enumerate(shape) if size != 1), default=0)
    return shape[: last + 1]


def widened(values: Array) -> Array:
    """An array of a narrow floating-point type in float32, any other as it is."""
    narrow = values.dtype.itemsize < 4 and values.dtype.kind not in "iub"
    return values.astype(np.float32) if narrow else values


def is_numeric(values: Array) -> bool:
    """Whether an array holds real numbers; the narrow float types of ml_dtypes are among them."""
    return values.dtype.kind in "fiub" or (values.dtype.kind == "V" and values.dtype.isbuiltin == 2)
