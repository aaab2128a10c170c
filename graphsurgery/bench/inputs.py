"""Inputs of models that are timed: random arrays, of the sizes that were asked for where the model leaves them open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import RequestError, concerning
from ..feature_map import Array
from ..messages import closest
from ..modelfile.model import ModelFile
from ..runtime.sample_inputs import GraphInput, graph_inputs, random_feeds

SIDE = 640
"""Height and width of an image, where the model leaves them open."""


@dataclass(frozen=True)
class Inputs:
    """``arrays``: input name -> array. ``chosen``: a sentence for each input whose sizes the model leaves open."""

    arrays: Mapping[str, Array]
    chosen: tuple[str, ...]


@concerning("shapes")
def inputs_for(model: ModelFile, shapes: Mapping[str, Sequence[int]] | None = None, batch: int | None = None) -> Inputs:
    """Random inputs. ``shapes``: input name -> sizes. ``batch``: the first size of every input that leaves it open.

    Otherwise open sizes become 1 for the batch, 3 channels, and :data:`SIDE` pixels. Raises RequestError for a shape
    that the model does not take, and for a batch of another size than the model's.
    """
    declared, wanted = graph_inputs(model.structure), shapes or {}
    names = [each.name for each in declared]
    for name in wanted:
        if name not in names:
            raise RequestError(
                f"the model has no input {name!r}; it has {', '.join(names)}", candidates=closest(name, names) or names
            )
    concrete = [replace(each, shape=_shape(each, wanted.get(each.name), batch)) for each in declared]
    chosen = tuple(
        f"{each.name} is {_sizes(each.shape)}: timed at {_sizes(taken.concrete(SIDE))}, since its shape was not given"
        for each, taken in zip(declared, concrete, strict=True)
        if None in each.shape and each.name not in wanted
    )
    return Inputs(random_feeds(concrete, SIDE), chosen)


def _shape(given: GraphInput, wanted: Sequence[int] | None, batch: int | None) -> tuple[int | None, ...]:
    own = given.shape
    if wanted is not None:
        if len(own) != len(wanted) or any(a not in (None, b) or b < 1 for a, b in zip(own, wanted, strict=True)):
            raise RequestError(f"{_sizes(wanted)} does not fit the input {given.name}, whose shape is {_sizes(own)}")
        return tuple(wanted)
    if batch is None or not own:
        return own
    if own[0] not in (None, batch):
        sentence = f"the input {given.name} has a batch of {own[0]}, which cannot be made {batch}"
        raise RequestError(sentence, option="batch")
    return (batch, *own[1:])


def _sizes(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
