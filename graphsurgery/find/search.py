"""Search: which block a part is, tried until numbers say so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from ..blocks.block import Block, Module
from ..blocks.state_dict import load_weights
from ..errors import GraphSurgeryError
from ..feature_map import Array, FeatureMap
from ..verification.runners import one_thread
from . import settings
from .proof import FAILURES, PartAlone, Proof, near, prove
from .reading import Reading, may_do_the_same
from .uses import Kind

if TYPE_CHECKING:
    from .tracing import Trace

_SMALL = (8, 8)
_DYNAMIC = 20
_MOST_TRIED = 200
"""comparisons of a part with blocks of the same parameters, beyond the plainest ones"""

_done: dict[object, set[Kind]] = {}
"""a block with its switches -> what it does, looked at once"""


@dataclass(frozen=True)
class Match:
    """A block that a part is."""

    block: Block
    weights: Mapping[str, Array]
    proof: Proof


class Search:
    """Remembers what parts of one structure were, so that the next one is tried with that first."""

    def __init__(self) -> None:
        self._known: dict[object, Block | None] = {}
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
                self._sized[key] = list(settings.sized(block, reading))
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
            if block is None or found is not None:
                return found
        found = None
        for block in self.alike(reading):
            if not may_do_the_same(reading.kinds, self._kinds(block)):
                continue
            found = self._tried(settings.free(block, reading), reading, alone)
            if found is not None:
                break
        self._known[key] = found.block if found else None
        return found

    @one_thread()
    def _tried(self, blocks: Iterable[Block], reading: Reading, alone: PartAlone) -> Match | None:
        """The first of some blocks with the same parameters that the part is: each with the plainest pairing of these
        and the part's constants, then with the others.
        """
        tried: list[tuple[Block, Module]] = []
        pairings: Iterator[dict[str, Array]] = iter(())
        first: dict[str, Array] | None = None
        for block in blocks:
            if first is None:
                pairings = self._weights(block, reading)
                first = next(pairings, None)
            if first is None:
                return None
            try:
                module = block.module(alone.feature)
            except FAILURES:
                continue
            tried.append((block, module))
            if (found := self._compared(block, module, first, alone)) is not None:
                return found
        for weights in islice(pairings, _MOST_TRIED // max(len(tried), 1)):
            for block, module in tried:
                if (found := self._compared(block, module, weights, alone)) is not None:
                    return found
        return None

    def _compared(self, block: Block, module: Module, weights: Mapping[str, Array], alone: PartAlone) -> Match | None:
        try:
            load_weights(module, weights)
            module.eval()
            if not near(module.float(), alone):
                return None
            load_weights(module, weights)
            proof = prove(module, alone)
        except FAILURES:
            return None
        return Match(settings.plain(block, alone.feature), weights, proof) if proof.passed else None

    def _weights(self, block: Block, reading: Reading) -> Iterator[dict[str, Array]]:
        """The ways in which the constants of a part can be the weights of a block."""
        from .aligning import weights

        feature = reading.part.feature
        try:
            trace = self._trace(block, feature)
        except FAILURES:
            return iter(())
        epsilon = block.number("bn_eps") or 1e-5
        return weights(trace, reading.uses, epsilon, reading.norms)

    def _may_be(self, block: Block, reading: Reading) -> bool:
        """Whether a block does what a part does with some choice of its switches."""
        return any(may_do_the_same(reading.kinds, self._kinds(each)) for each in settings.switched(block))

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
        from .tracing import trace

        shapes = block.parameters(feature)
        place = replace(feature, batch=1, height=feature.height or _DYNAMIC, width=feature.width or _DYNAMIC)
        small = replace(place, height=_SMALL[0], width=_SMALL[1])
        try:
            block.check(small)
            if place.area > small.area and block.parameters(small) == shapes:
                place = small
        except (GraphSurgeryError, ValueError, ArithmeticError):
            pass
        key = (block.spelled, tuple(shapes.items()), place.height, place.width)
        if key not in self._traces:
            self._traces[key] = trace(block.module(place), shapes, (1, place.channels, *place.size))
        return self._traces[key]
