"""Search: which block a part is, tried until numbers say so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING

from ..blocks.block import Block, Module
from ..blocks.state_dict import load_weights
from ..errors import GraphSurgeryError
from ..feature_map import Array, FeatureMap
from ..verification.runners import one_thread
from . import settings
from .proof import FAILURES, PartAlone, Proof, common_factor, pair, prove
from .reading import Reading
from .uses import Kind

if TYPE_CHECKING:
    from .tracing import Trace

_SMALL = (8, 8)
_DYNAMIC = 20
_MOST_TRIED = 200
"""comparisons of a part with blocks of the same parameters, beyond the plainest ones"""
_MOST_EQUAL = 4
"""choices of the settings of another block that are tried, once one is known"""

_done: dict[object, set[Kind]] = {}
"""a block with its switches -> what it does, looked at once"""


@dataclass(frozen=True)
class Match:
    """A block that a part is."""

    block: Block
    weights: Mapping[str, Array]
    proof: Proof
    equals: tuple[str, ...] = ()
    """other blocks that compute the same with these weights"""


class Search:
    """Remembers what parts of one structure were, so that the next one is tried with that first."""

    def __init__(self) -> None:
        self._known: dict[object, Block | None] = {}
        self._equals: dict[object, tuple[str, ...]] = {}
        self._multiples: dict[object, Block] = {}
        """what parts are but for a factor"""
        self._sized: dict[object, list[Block]] = {}
        self._traces: dict[object, Trace] = {}

    def alike(self, reading: Reading, *, look: bool = True) -> Iterator[Block]:
        """The blocks whose weights can be those of a part, with the hyper-parameters that their shapes tell.

        ``look``: whether modules can be run, to leave out those that do something else.
        """
        feature = reading.part.feature
        place = (feature.channels, (feature.height, feature.width))
        weights = (reading.matrices, reading.tables, reading.vectors)
        known = (*weights, *map(frozenset, (reading.widths, reading.kernels, reading.sides)), *place)
        for block in settings.plausible(*weights, *place):
            key = (block.spelled, known)
            if key not in self._sized:
                self._sized[key] = settings.plainest(settings.sized(block, reading), reading)
            # what shapes tell takes less time than to run a module
            if not look or (self._sized[key] and self._may_be(block, reading)):
                yield from self._sized[key]

    def match(self, reading: Reading) -> Match | None:
        """The block that a part is; None where it is none."""
        key = reading.likeness
        alone = PartAlone(reading)
        if key in self._known:
            block = self._known[key]
            found = self._tried([block], reading, alone) if block is not None else None
            if block is None:
                return None
            if found is not None:
                return replace(found, equals=self._equals[key])
        found = None
        blocks = (each for each in self.alike(reading) if reading.may_do_the_same(self._kinds(each)))
        for block in blocks:
            found = self._tried(settings.free(block, reading), reading, alone)
            if found is not None:
                found = replace(found, equals=self._equal(found.block, blocks, reading, alone))
                self._equals[key] = found.equals
                break
        self._known[key] = found.block if found else None
        if alone.multiple is not None:
            self._multiples[key] = alone.multiple[0]
        return found

    def proves(self, block: Block, reading: Reading) -> bool:
        """Whether a part is this block, with weights of its own."""
        return self._tried([block], reading, PartAlone(reading)) is not None

    def _equal(self, found: Block, others: Iterable[Block], reading: Reading, alone: PartAlone) -> tuple[str, ...]:
        """Which other blocks compute the same with the weights of a part, in their usual settings: those that come
        after the one that was found.
        """
        equals = dict[str, None]()
        for block in others:
            if block.spelled not in (found.spelled, *equals):
                plainest = islice(settings.free(block, reading), _MOST_EQUAL)
                if self._tried(plainest, reading, alone, most=0) is not None:
                    equals[block.spelled] = None
        return tuple(equals)

    def multiple(self, reading: Reading) -> tuple[Block, Array] | None:
        """The block whose result a part that is none gives but for a factor, and the factor: known where
        :meth:`match` was asked for a part of this structure.
        """
        block = self._multiples.get(reading.likeness)
        if block is None:
            return None
        alone = PartAlone(reading)
        self._tried([block], reading, alone)
        return (settings.plain(block, alone.feature), alone.multiple[1]) if alone.multiple else None

    @one_thread()
    def _tried(
        self, blocks: Iterable[Block], reading: Reading, alone: PartAlone, most: int = _MOST_TRIED
    ) -> Match | None:
        """The first of some blocks with the same parameters that the part is: each with the plainest pairing of these
        and the part's constants, then with the others, ``most`` comparisons in all. Where weights are solved for, they
        are others for each block, and all of its pairings are tried at once.
        """
        tried: list[tuple[Block, Module]] = []
        pairings: Iterator[dict[str, Array]] = iter(())
        first: dict[str, Array] | None = None
        solved = False
        for block in blocks:
            if first is None or solved:
                pairings, solved = self._weights(block, reading)
                first = next(pairings, None)
            if first is None:
                if solved:
                    continue
                return None
            try:
                module = block.module(alone.feature)
            except FAILURES:
                continue
            for weights in chain([first], islice(pairings, most) if solved else ()):
                if (found := self._compared(block, module, weights, alone)) is not None:
                    return found
            tried.append((block, module))
        for weights in islice(pairings, most // max(len(tried), 1)):
            for block, module in tried:
                if (found := self._compared(block, module, weights, alone)) is not None:
                    return found
        return None

    def _compared(self, block: Block, module: Module, weights: Mapping[str, Array], alone: PartAlone) -> Match | None:
        try:
            load_weights(module, weights)
            module.eval()
            first = pair(module.float(), alone)
            if first is None or not first.near:
                if first and alone.multiple is None and (found := common_factor(first, module, alone)) is not None:
                    alone.multiple = block, found
                return None
            load_weights(module, weights)
            proof = prove(module, alone)
        except FAILURES:
            return None
        return Match(settings.plain(block, alone.feature), weights, proof) if proof.passed else None

    def _weights(self, block: Block, reading: Reading) -> tuple[Iterator[dict[str, Array]], bool]:
        """The ways in which the constants of a part can be the weights of a block; and whether they are solved for, so
        that they are others with other settings.
        """
        from .aligning import weights

        feature = reading.part.feature
        try:
            trace = self._trace(block, feature)
        except FAILURES:
            return iter(()), False
        epsilon = block.number("bn_eps") or 1e-5
        orders = {
            tuple(use.name for use in uses): uses
            for uses in (reading.uses, reading.uses_by_branch, reading.uses_by_column)
        }
        each = (weights(trace, uses, epsilon, reading.norms) for uses in orders.values())
        return (found for together in zip_longest(*each) for found in together if found is not None), trace.solves

    def _may_be(self, block: Block, reading: Reading) -> bool:
        """Whether a block does what a part does with some choice of its switches."""
        return any(reading.may_do_the_same(self._kinds(each)) for each in settings.switched(block))

    def _kinds(self, block: Block) -> set[Kind]:
        """What a block does, looked at on a small map; all of what the part does where that cannot be seen."""
        switches = {each.name: block.values[each.name] for each in settings.switches(block)}
        key = (block.spelled, tuple(switches.items()))
        if key not in _done:
            _done[key] = self._looked_at(settings.usual(block.spelled).with_values(**switches))
        return _done[key]

    @one_thread()
    def _looked_at(self, block: Block) -> set[Kind]:
        from .tracing import trace

        for channels, side in ((64, 8), (64, 16), (256, 16)):
            feature = FeatureMap(channels, side, side, batch=1)
            try:
                block.check(feature)
                return trace(block.module(feature), block.parameters(feature), (1, channels, side, side)).kinds
            except FAILURES:
                continue
        return set()

    def _trace(self, block: Block, feature: FeatureMap) -> Trace:
        place = replace(feature, batch=1, height=feature.height or _DYNAMIC, width=feature.width or _DYNAMIC)
        small = replace(place, height=_SMALL[0], width=_SMALL[1])
        with suppress(GraphSurgeryError, ValueError, ArithmeticError):
            block.check(small)
            if place.area > small.area and block.parameters(small) == block.parameters(feature):
                found = self._trace_at(block, small)
                if not found.solves:  # what is solved may be of the size of the map
                    return found
        return self._trace_at(block, place)

    def _trace_at(self, block: Block, place: FeatureMap) -> Trace:
        from .tracing import trace

        shapes = block.parameters(place)
        key = (block.spelled, tuple(shapes.items()), place.height, place.width)
        for each in (key, (*key, *block.values.items())):
            if each not in self._traces:
                self._traces[each] = trace(block.module(place), shapes, (1, place.channels, *place.size))
            if not self._traces[each].solves:  # else other settings may make something else of the same parameters
                break
        return self._traces[each]
