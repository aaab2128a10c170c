"""Head detection: where a head begins, from what it has in common at all of its strides.

A head does the same on every map that it reads: downstream of each are the same operators, up to the widths; on the
smallest one, it may do with less. What a neck does last on one map (the convolutions of YOLOv3 after the last
Upsample, the smoothing of an FPN) also serves nothing but the head, but it differs from stride to stride, or every path
goes through it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .block import RecognisedBlock
from .strides import Stride

_Signature: TypeAlias = tuple[object, frozenset[object]]


@dataclass(frozen=True)
class Unit:
    """A recognised block or a single node that only a head reads."""

    place: int
    """of its last node, in the order of the graph"""
    nodes: frozenset[int]
    kind: tuple[object, ...]
    """what it computes, but for the widths"""
    level: Stride | None
    """the stride of the maps that it works on"""
    leaves: bool
    """whether its output leaves the image plane, or the model"""
    sources: tuple[int, ...]
    """places of what it reads"""
    convolution: RecognisedBlock | None


def describe(block: RecognisedBlock | None, op: str) -> tuple[object, ...]:
    """What a block, or a node that is in none, computes, but for the widths."""
    if block is None:
        return (op,)
    facts = block.facts
    inner = tuple(describe(part, "") for _, part in block.parts)
    return (block.type, facts.get("kernel"), facts.get("depthwise"), facts.get("activation"), inner)


def head_units(units: Sequence[Unit], strides: int) -> list[Unit]:
    """The units that are a head: the same at all strides at which it has exits, and of one width before it branches.

    ``strides``: at how many there are exits, with those that something else than the head reads.
    """
    by_place = {unit.place: unit for unit in units}
    consumers: dict[int, list[int]] = defaultdict(list)
    for unit in units:
        for source in set(unit.sources):
            consumers[source].append(unit.place)
    signatures = _signatures(by_place, consumers)
    levels: dict[int, set[Stride | None]] = defaultdict(set)
    widths: dict[int, set[tuple[object, object]]] = defaultdict(set)
    for unit in units:
        levels[signatures[unit.place]].add(unit.level)
        widths[signatures[unit.place]].add(_widths(unit))
    exits = [levels[signatures[unit.place]] for unit in units if unit.leaves]
    main = max(exits, key=len, default=set())
    if len(main) < min(2, strides):
        return []
    necks = {place for level in main for place in _bottlenecks([u for u in units if u.level == level])}
    kept: dict[int, bool] = {}
    """place -> whether a convolution stands there or downstream of it"""
    for place in sorted(by_place, reverse=True):
        unit, signature = by_place[place], signatures[place]
        if not main <= levels[signature] or not all(consumer in kept for consumer in consumers[place]):
            continue
        downstream = any(kept[consumer] for consumer in consumers[place])
        stem = len(main) > 1 and _is_stem(unit, widths[signature])
        if place not in necks or unit.leaves or not downstream or stem:
            kept[place] = downstream or unit.convolution is not None
    kept |= {unit.place: True for unit in units if unit.level not in main and _predicts(unit)}
    return [unit for unit in units if unit.place in kept]


def convolutions(block: RecognisedBlock | None) -> list[RecognisedBlock]:
    """The convolutions in a block, in order."""
    return [part for part in block.everything() if "kernel" in part.facts] if block is not None else []


def _widths(unit: Unit) -> tuple[object, object]:
    """The channels in front of a unit and behind it."""
    found = convolutions(unit.convolution)
    return (found[0].facts.get("channels_in"), found[-1].facts.get("channels_out")) if found else (None, None)


def _is_stem(unit: Unit, widths: Collection[tuple[object, object]]) -> bool:
    """Whether what every path goes through is the head's: it has an activation and gives one width at all strides, from
    maps of one width or by a 1x1 convolution. A larger one that makes the widths the same is how a neck ends.
    """
    found = convolutions(unit.convolution)
    if not found or found[-1].facts.get("activation") is None or len({behind for _, behind in widths}) > 1:
        return False
    return len(widths) == 1 or (len(found) == 1 and found[0].facts.get("kernel") == (1, 1))


def _predicts(unit: Unit) -> bool:
    """Whether a unit gives values rather than features: the plain convolution on the smallest map of an SSD."""
    return unit.leaves and unit.convolution is not None and unit.convolution.facts.get("activation") is None


def _signatures(units: Mapping[int, Unit], consumers: Mapping[int, Collection[int]]) -> dict[int, int]:
    """A number for each unit, the same where the unit and all that is downstream of it compute the same."""
    known: dict[_Signature, int] = {}
    found: dict[int, int] = {}
    for place in sorted(units, reverse=True):
        downstream = frozenset(found[consumer] for consumer in consumers.get(place, ()))
        key: _Signature = ((units[place].kind, units[place].leaves), downstream)
        found[place] = known.setdefault(key, len(known))
    return found


def _bottlenecks(units: Sequence[Unit]) -> set[int]:
    """Places of the units that every path to the exits of one stride goes through."""
    by_place = {unit.place: unit for unit in units}
    waiting = [-unit.place for unit in units if unit.leaves]
    heapq.heapify(waiting)
    seen, found = set(waiting), set[int]()
    while waiting:
        place = -heapq.heappop(waiting)
        if not waiting:
            found.add(place)
        for source in by_place[place].sources if place in by_place else ():
            if -source not in seen:
                seen.add(-source)
                heapq.heappush(waiting, -source)
    return found
