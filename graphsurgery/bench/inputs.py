"""What models are fed with when they are timed: random arrays, of sizes that were asked for where the model leaves them
open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..modelfile.model import ModelFile
from ..runtime.sample_inputs import GraphInput, graph_inputs, random_feeds

SIDE = 640
"""Height and width of an image, where the model leaves them open."""


@dataclass(frozen=True)
class Inputs:
    """``arrays``: input name -> array. ``chosen``: a sentence for each input whose sizes the model leaves open."""

    arrays: Mapping[str, npt.NDArray[Any]]
    chosen: tuple[str, ...]


def inputs_for(model: ModelFile, shapes: Sequence[str] = (), batch: int | None = None) -> Inputs:
    """Random inputs. ``shapes``: ``NAME=1x3x640x640``. ``batch``: the first size of every input that leaves it open.

    Otherwise open sizes become 1 for the batch, 3 channels, and :data:`SIDE` pixels. Raises RequestError for a shape
    that cannot be read or that the model does not take, and for a batch of another size than the model's.
    """
    declared = graph_inputs(model.structure)
    wanted = dict(_read(text, declared) for text in shapes)
    settled = [replace(each, shape=_settled(each, wanted.get(each.name), batch)) for each in declared]
    chosen = []
    for before, after in zip(declared, settled, strict=True):
        if None in before.shape and before.name not in wanted:
            open_sizes = "x".join("?" if size is None else str(size) for size in before.shape)
            taken = "x".join(map(str, after.concrete(SIDE)))
            chosen.append(f"{before.name} is {open_sizes}: timed at {taken}; --shape {before.name}=... for another")
    return Inputs(random_feeds(settled, SIDE), tuple(chosen))


def _read(text: str, declared: Sequence[GraphInput]) -> tuple[str, tuple[int, ...]]:
    name, equals, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split("x"))
    except ValueError:
        shape = ()
    if not equals or not shape or min(shape) < 1:
        raise RequestError(f"--shape takes NAME=1x3x640x640, not {text!r}")
    if name not in {each.name for each in declared}:
        raise RequestError(f"the model has no input {name!r}; it has {', '.join(each.name for each in declared)}")
    return name, shape


def _settled(given: GraphInput, wanted: tuple[int, ...] | None, batch: int | None) -> tuple[int | None, ...]:
    own = given.shape
    if wanted is not None:
        fits = len(own) == len(wanted) and all(a in (None, b) for a, b in zip(own, wanted, strict=True))
        if not fits:
            declared = "x".join("?" if size is None else str(size) for size in own)
            asked = "x".join(map(str, wanted))
            raise RequestError(f"{asked} does not fit the input {given.name}, whose shape is {declared}")
        return wanted
    if batch is None or not own:
        return own
    if own[0] not in (None, batch):
        raise RequestError(f"the input {given.name} has a batch of {own[0]}, which cannot be made {batch}")
    return (batch, *own[1:])


def described(arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Any]:
    """{name: {"shape", "dtype"}}."""
    return {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()}
