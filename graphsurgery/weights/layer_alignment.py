"""Alignment: which layer of an edited YAML is which of the original, found by what the layers are and read.

An edited file is the original with layers inserted: every layer of the original is in it, in the same order, made of
the same, and reads the same layers, or inserted ones that read these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from ..errors import WeightsError, option
from ..messages import listed
from ..modelfile import limits
from .layout import IMAGE, Layer, Layout

_Origin = int | None
"""of a layer of the edited file: what it passes on of the original, a layer or IMAGE; None for something new"""
_FAMILY = 0.5
"""a file that has fewer of the original's layers is no edit of it"""


@dataclass(frozen=True)
class Alignment:
    """The layers of an edited file, and what is not certain of them."""

    old: tuple[int | None, ...]
    """for each layer the one of the original that it is; None: it is new"""
    uncertain: tuple[str, ...]

    @property
    def fresh(self) -> list[int]:
        """The layers that are new."""
        return [index for index, old in enumerate(self.old) if old is None]


def align(before: Layout, after: Layout, weighted: Collection[int], fresh: Collection[int] = ()) -> Alignment:
    """The one way in which ``after`` is ``before`` with layers inserted.

    Parameters
    ----------
    weighted:
        The layers of ``before`` that have weights: of others it does not matter which is which.
    fresh:
        Layers of ``after`` that the user says are new.

    Raises
    ------
    WeightsError
        If there is none, or more than one.
    """
    if wrong := sorted(index for index in fresh if not 0 <= index < len(after.layers)):
        raise WeightsError(f"{after.name} has no layer {wrong[0]}: it has the layers 0 to {len(after.layers) - 1}")
    _check_scales(before, after)
    search = _Search(before.layers, after.layers, frozenset(fresh))
    ways = search.ways()
    first = next(ways, None)
    if first is None:
        raise WeightsError(_difference(before, after, frozenset(fresh)))
    for other in ways:
        _check_same(first, other, before, after, weighted)
    if search.exhausted:
        raise WeightsError(
            f"there are too many ways in which {after.name} can be {before.name} with layers inserted; say which of "
            f"its layers are new: {option('fresh', 'N')}"
        )
    return Alignment(tuple(first), tuple(_uncertain(before, after, first)))


class _Search:
    """All ways to find the layers of one file in another, in order, that agree with what the layers read."""

    def __init__(self, before: Sequence[Layer], after: Sequence[Layer], fresh: Collection[int]) -> None:
        self._before, self._after, self._fresh = before, after, fresh
        self._steps = 0

    @property
    def exhausted(self) -> bool:
        """Whether the search was given up."""
        return self._steps > limits.ALIGNMENTS

    def ways(self) -> Iterator[list[int | None]]:
        """For every layer of the edited file the one that it is, in each of the ways."""
        return self._from([], [], 0)

    def _from(self, old: list[int | None], origins: list[_Origin], found: int) -> Iterator[list[int | None]]:
        self._steps += 1
        index = len(old)
        if self.exhausted or len(self._after) - index < len(self._before) - found:
            return
        if index == len(self._after):
            yield old
            return
        layer = self._after[index]
        wanted = self._before[found] if found < len(self._before) and index not in self._fresh else None
        if wanted is not None and layer.made_of == wanted.made_of and _reads_alike(layer, wanted, origins):
            yield from self._from([*old, found], [*origins, found], found + 1)
        yield from self._from([*old, None], [*origins, passed_on(layer, origins)], found)


def passed_on(layer: Layer, origins: Sequence[_Origin]) -> _Origin:
    """What a new layer passes on of the original: what it reads, if that is one thing."""
    return _origin(layer.sources[0], origins) if len(layer.sources) == 1 else None


def _origin(source: int, origins: Sequence[_Origin]) -> _Origin:
    return IMAGE if source == IMAGE else origins[source]


def _reads_alike(layer: Layer, original: Layer, origins: Sequence[_Origin]) -> bool:
    """Whether a layer reads what the original one does; something new may stand for anything."""
    if len(layer.sources) != len(original.sources):
        return False
    pairs = zip(layer.sources, original.sources, strict=True)
    return all(_origin(source, origins) in (wanted, None) for source, wanted in pairs)


def _check_same(
    first: Sequence[int | None], other: Sequence[int | None], before: Layout, after: Layout, weighted: Collection[int]
) -> None:
    places = [{old: index for index, old in enumerate(way) if old is not None} for way in (first, other)]
    for old in sorted(weighted):
        one, two = (place[old] for place in places)
        if one != two:
            raise WeightsError(
                f"layers {one} and {two} of {after.name} are both {after.layers[one]}: either can be layer {old} of "
                f"{before.name}; say which is new: {option('fresh', two)}, or {one}"
            )


def _check_scales(before: Layout, after: Layout) -> None:
    if before.multiples != after.multiples:
        known = f"at scale {before.scale!r}" if before.scale else "with other multiples"
        hint = ": Ultralytics takes the scale from the file's name" if before.scale and after.scale else ""
        raise WeightsError(
            f"{after.name} makes a model of scale {after.scale!r}, and {before.name} is {known}, so the channels "
            f"differ{hint}"
        )


def _difference(before: Layout, after: Layout, fresh: Collection[int]) -> str:
    """The sentence for a file in which the layers of the original are not."""
    old = [layer.made_of for layer in before.layers]
    new = [None if index in fresh else layer.made_of for index, layer in enumerate(after.layers)]
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    common = sum(block.size for block in matcher.get_matching_blocks())
    if common < _FAMILY * len(old):
        return (
            f"{after.name} is no edit of {before.name}: of the {len(old)} layers of that, only {common} are in it in "
            f"this order"
        )
    for kind, i, end, j, stop in matcher.get_opcodes():
        if kind in ("delete", "replace"):
            same = [k for k in range(j, stop) if after.layers[k].module == before.layers[i].module]
            if same:
                return (
                    f"layer {i} of {before.name} is {before.layers[i]}, and layer {same[0]} of {after.name} is "
                    f"{after.layers[same[0]]}: layers can be inserted, not changed"
                )
            gone = [f"{k} ({before.layers[k]})" for k in range(i, end)]
            return f"{after.name} lacks layer {listed(gone)} of {before.name}: layers can be inserted, not removed"
    return _rewired(before, after, old, new)


def _rewired(before: Layout, after: Layout, old: Sequence[object], new: Sequence[object]) -> str:
    """The sentence for a file that has all layers, one of which reads something else."""
    origins: list[_Origin] = []
    places: dict[int, int] = {}
    for index, layer in enumerate(after.layers):
        found = len(places)
        if found == len(old) or new[index] != old[found]:
            origins.append(passed_on(layer, origins))
            continue
        original = before.layers[found]
        if not _reads_alike(layer, original, origins):
            wanted = [str(places.get(source, "the image")) for source in original.sources]
            read = ["the image" if source == IMAGE else str(source) for source in layer.sources]
            return (
                f"layer {index} of {after.name} ({layer.module}) reads {listed(read)}; what it reads in {before.name} "
                f"is now {listed(wanted)}: renumber its 'from'"
            )
        places[found] = index
        origins.append(found)
    return f"{after.name} is no edit of {before.name}: its layers read others"


def _uncertain(before: Layout, after: Layout, old: Sequence[int | None]) -> Iterator[str]:
    """What is not certain. WeightsError where a layer reads another number of channels than it was made for."""
    given = _channels(before)
    now: list[int | None] = []
    for index, layer in enumerate(after.layers):
        read = _read(layer, now)
        made_for = old[index]
        if made_for is None:
            now.append(after.channels(layer, read))
            continue
        original = before.layers[made_for]
        wanted = _read(original, given)
        for source, has, needs in zip(layer.sources, read, wanted, strict=True):
            if has is not None and needs is not None and has != needs:
                raise WeightsError(
                    f"layer {source} of {after.name} ({after.layers[source]}) gives {has} channels; layer {index} "
                    f"({layer.module}), which reads it, is made for {needs} in {before.name}"
                )
            if has is None and needs is not None:
                yield f"layer {source} of {after.name} ({after.layers[source]}) has to give {needs} channels"
        now.append(given[made_for])
    for key in sorted(before.head.keys() | after.head.keys()):
        if before.head.get(key) != after.head.get(key):
            yield (
                f"{key} is {after.head.get(key, 'not given')} in {after.name} and {before.head.get(key, 'not given')} "
                f"in {before.name}: weights of the head that depend on it are not loaded"
            )


def _channels(layout: Layout) -> list[int | None]:
    found: list[int | None] = []
    for layer in layout.layers:
        found.append(layout.channels(layer, _read(layer, found)))
    return found


def _read(layer: Layer, given: Sequence[int | None]) -> list[int | None]:
    """The channels that a layer reads."""
    return [None if source == IMAGE else given[source] for source in layer.sources]
