"""Which constant of a part is which parameter of a module: both sides' uses paired in their order.

Exporters fold a BatchNorm into the convolution before it, or write it as a product and a sum; so a step of the module
has several forms. Where the order leaves a choice, every pairing is given in turn, the plainest first: numbers decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, permutations, product

import numpy as np

from ..feature_map import Array
from .tracing import Step, Trace
from .uses import Role, Use

_MOST_PAIRINGS = 40
_SKIPPED_MATRIX = 100
_SKIPPED = 1
_LACKING = 10
"""what it costs to leave out a matrix of the part or another constant of it, and a bias of the module"""
_UNIT = 1e-9


@dataclass(frozen=True)
class _Slot:
    """A constant that a form of a step has."""

    use: Use
    """of the module"""
    role: Role
    optional: bool = False
    """a bias, which may be left out where it is 0"""


@dataclass(frozen=True)
class _Form:
    """One way to write a step."""

    slots: tuple[_Slot, ...]
    neutral: tuple[tuple[Use, float], ...] = ()
    """uses that it leaves out, and the value that stands for that"""
    cost: float = 0


def weights(trace: Trace, uses: Sequence[Use], epsilon: float, norms: int) -> Iterator[dict[str, Array]]:
    """The parameters of a module by key, as the uses of a part may tell them: one pairing after the other.

    ``epsilon``: of the module's BatchNorms. ``norms``: how many BatchNormalization nodes the part has.
    """
    wanted = {use.size for step in trace.steps for use in step.uses}
    if any(use.role is Role.MATRIX and use.size > 1 and use.size not in wanted for use in uses):
        return
    uses = [use for use in uses if use.size in wanted]
    seen = set[tuple[int, ...]]()
    forms, origins = _forms(trace.steps, epsilon, norms), _Origins(trace)
    learned, leaves_out = _vectors(uses), False
    for pairing in islice(_pairings(forms, uses), _MOST_PAIRINGS):
        key = tuple(-1 if j is None else j for _, j, _ in pairing)
        if key in seen:
            continue
        seen.add(key)
        if learned - {uses[j].name for _, j, _ in pairing if j is not None}:
            if leaves_out:
                continue  # one such is enough: hardly anything does without what it has learned
            leaves_out = True
        if not _turned_round(pairing, uses) and (found := _values(origins, uses, pairing)) is not None:
            yield found


def _vectors(uses: Sequence[Use]) -> set[str]:
    """The constants of one axis whose numbers differ."""
    return {use.name for use in uses if len(use.squeezed) == 1 and np.ptp(use.values()) > 0}


_Pair = tuple[Use, "int | None", float]
"""(a use of the module, the use of the part or None, the value where there is none)"""


def _forms(steps: Sequence[Step], epsilon: float, norms: int) -> list[list[_Form]]:
    """Each step's forms, without those of BatchNorms that come with the step before them."""
    norm_after = {step.after: step for step in steps if step.norm and step.after is not None}
    every = sum(step.norm for step in steps)
    found = []
    for i, step in enumerate(steps):
        if step.norm:
            if step.after is None:
                found.append(_norm_forms(step, epsilon))
            continue
        alone = not (i and steps[i - 1].uses[-1].role is Role.MATRIX)  # else it is the bias of that
        plain = tuple(
            _Slot(use, use.role, optional=use.role is Role.SHIFT and (n > 0 or not alone))
            for n, use in enumerate(step.uses)
        )
        plain = tuple(sorted(plain, key=lambda slot: slot.role is Role.SHIFT))
        norm = norm_after.get(i)
        if norm is None:
            found.append([_Form(plain)])
            continue
        folded = _folded(plain, norm, epsilon)
        apart = [_Form(plain + form.slots, form.neutral, form.cost) for form in _norm_forms(norm, epsilon)]
        found.append([*apart, folded] if norms == every else [folded, *apart])
    return found


def _norm_forms(step: Step, epsilon: float) -> list[_Form]:
    scale, shift, mean, variance = step.uses
    whole = _Form(tuple(_Slot(use, use.role) for use in step.uses))
    one = 1.0 - epsilon  # with which the root is 1
    affine = _Form((_Slot(scale, Role.SCALE), _Slot(shift, Role.SHIFT)), ((mean, 0.0), (variance, one)), 0.5)
    return [whole, affine]


def _folded(plain: tuple[_Slot, ...], norm: Step, epsilon: float) -> _Form:
    scale, shift, mean, variance = norm.uses
    matrices = tuple(slot for slot in plain if slot.role is Role.MATRIX)
    biases = tuple((slot.use, 0.0) for slot in plain if slot.role is not Role.MATRIX)
    slots = (*matrices, _Slot(shift, Role.SHIFT, optional=True))
    return _Form(slots, (*biases, (scale, 1.0), (mean, 0.0), (variance, 1.0 - epsilon)))


# ---------------------------------------------------------------------- pairings


def _pairings(forms: Sequence[Sequence[_Form]], uses: Sequence[Use]) -> Iterator[list[_Pair]]:
    first = _in_order(forms, uses)
    if first is not None:
        yield first
        yield from _exchanged(first, uses)
    for chosen in (0, -1):
        loose = _in_any_order([each[chosen if len(each) > 1 else 0] for each in forms], uses)
        if loose is not None:
            yield loose
            yield from _exchanged(loose, uses)


def _in_order(forms: Sequence[Sequence[_Form]], uses: Sequence[Use]) -> list[_Pair] | None:
    """The pairing that keeps the order and leaves out the least; None where there is none."""
    skipped = [0.0]
    for use in uses:
        skipped.append(skipped[-1] + (_SKIPPED_MATRIX if use.role is Role.MATRIX else _SKIPPED))
    infinite = float("inf")

    @lru_cache(None)
    def best(i: int, j: int) -> tuple[float, int, int]:
        """(cost, form, place to begin at) of the steps from the i-th on in the uses from the j-th on."""
        if i == len(forms):
            return skipped[-1] - skipped[j], -1, j
        least = (infinite, -1, j)
        starts = range(j, len(uses) + 1)
        for start in starts:
            before = skipped[start] - skipped[j]
            if before >= least[0]:
                break
            for number, form in enumerate(forms[i]):
                placed = _placed(form, uses, start)
                if placed is None:
                    continue
                last = max((k for k in placed if k is not None), default=start - 1)
                used = [k for k in placed if k is not None]
                between = sum(
                    _SKIPPED_MATRIX if uses[k].role is Role.MATRIX else _SKIPPED
                    for k in range(start, last + 1)
                    if k not in used
                )
                lacking = _LACKING * (len(placed) - len(used))
                cost = before + between + lacking + form.cost + best(i + 1, last + 1)[0]
                if cost < least[0]:
                    least = (cost, number, start)
        return least

    result: list[_Pair] = []
    j = 0
    for i in range(len(forms)):
        cost, number, start = best(i, j)
        if cost == infinite:
            return None
        form = forms[i][number]
        placed = _placed(form, uses, start)
        assert placed is not None
        result += _pairs(form, placed)
        j = max((k for k in placed if k is not None), default=start - 1) + 1
    return result


def _placed(form: _Form, uses: Sequence[Use], start: int) -> list[int | None] | None:
    """Where a form's constants are from a place on, each the next that fits; the first of them right there."""
    places: list[int | None] = []
    at = start
    for n, slot in enumerate(form.slots):
        reach = range(at, min(len(uses), at + (1 if n == 0 else 12)))
        place = next((k for k in reach if _fits(slot, uses[k])), None)
        if place is None and not slot.optional:
            return None
        places.append(place)
        at = at if place is None else place + 1
    return places


def _in_any_order(forms: Sequence[_Form], uses: Sequence[Use]) -> list[_Pair] | None:
    """Each constant with the first that fits and is not taken."""
    taken = set[int]()
    result: list[_Pair] = []
    for form in forms:
        places: list[int | None] = []
        for slot in form.slots:
            place = next((k for k, use in enumerate(uses) if k not in taken and _fits(slot, use)), None)
            if place is None and not slot.optional:
                return None
            if place is not None:
                taken.add(place)
            places.append(place)
        result += _pairs(form, places)
    return result


def _pairs(form: _Form, places: Sequence[int | None]) -> list[_Pair]:
    pairs: list[_Pair] = [(slot.use, place, 0.0) for slot, place in zip(form.slots, places, strict=True)]
    return pairs + [(use, None, value) for use, value in form.neutral]


def _exchanged(first: list[_Pair], uses: Sequence[Use]) -> Iterator[list[_Pair]]:
    """The same with other constants of the same shapes and roles."""
    groups: dict[tuple[Role, tuple[int, ...]], list[int]] = {}
    for n, (use, place, _) in enumerate(first):
        if place is not None:
            groups.setdefault((uses[place].role, use.squeezed), []).append(n)
    choices: list[tuple[list[int], list[tuple[int | None, ...]]]] = []
    for (role, _), members in groups.items():
        slot = _Slot(first[members[0]][0], role)
        own = [first[n][1] for n in members]
        free = [k for k, use in enumerate(uses) if _fits(slot, use) and k not in own]
        if len(members) + len(free) > 6:
            free = free[: max(0, 6 - len(members))]
        if len(members) > 6:
            choices.append((members, [tuple(own)]))
            continue
        orders = list(dict.fromkeys(islice(permutations([*own, *free], len(members)), 60)))
        choices.append((members, orders))
    choices.sort(key=lambda each: len(each[1]))
    for chosen in product(*(each[1] for each in choices)):
        changed = list(first)
        for (members, _), order in zip(choices, chosen, strict=True):
            for n, place in zip(members, order, strict=True):
                changed[n] = (first[n][0], place, first[n][2])
        yield changed


def _turned_round(pairing: Sequence[_Pair], uses: Sequence[Use]) -> bool:
    """Whether of two matrices one comes after the other in the module, and before it in the part: no exporter does
    that. What is multiplied or added number by number may change places.
    """
    matrices = [(use, uses[place]) for use, place, _ in pairing if place is not None and use.role is Role.MATRIX]
    return any(
        use.comes_after(other) and other_there.comes_after(there)
        for use, there in matrices
        for other, other_there in matrices
    )


def _fits(slot: _Slot, use: Use) -> bool:
    """Whether a constant of a part can be one of a module."""
    if slot.role is not use.role and Role.OTHER not in (slot.role, use.role):
        return False
    if use.size != slot.use.size:
        return False
    if slot.role is Role.MATRIX and use.role is Role.MATRIX:
        return use.squeezed == slot.use.squeezed
    return True


# ---------------------------------------------------------------------- values


class _Origins:
    """Which elements of a module's parameters its uses are made of."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._known: dict[int, tuple[Array | None, float]] = {}

    def of(self, use: Use) -> tuple[Array | None, float]:
        """The elements, or None where that cannot be told, and the number that they are multiplied by; 0 where the use
        is another function of them.
        """
        if id(use) not in self._known:
            self._known[id(use)] = _places(use.values().reshape(-1), self.trace)
        return self._known[id(use)]


def _values(origins: _Origins, uses: Sequence[Use], pairing: Sequence[_Pair]) -> dict[str, Array] | None:
    """The parameters by key; None where the constants contradict each other."""
    trace = origins.trace
    flat = np.full(trace.count - trace.first, np.nan)
    doubtful: list[tuple[Array, Array]] = []
    for use, place, value in pairing:
        stated = uses[place].values().astype(np.float64) if place is not None else np.full(use.shape, value)
        given = stated.reshape(-1)
        if place is not None and use.inverse is not None:
            given = use.inverse(given)
        places, factor = origins.of(use)
        if use.solve is not None and not factor:
            if (solved := use.solve(use.as_read(stated))) is None:
                return None
            doubtful.append(solved)
            continue
        if places is None:
            return None
        if factor == 1.0:
            flat[places] = given
        else:
            doubtful.append((places, given / (factor or 1.0)))
    for places, given in doubtful:  # what other uses tell is surer
        flat[places] = np.where(np.isnan(flat[places]), given, flat[places])
    found = {}
    for key, (start, shape) in trace.keys.items():
        values = flat[start - trace.first :][: int(np.prod(shape))]
        found[key] = np.where(np.isnan(values), 0.0, values).reshape(shape)
    return found


def _places(numbers: Array, trace: Trace) -> tuple[Array | None, float]:
    for factor in (1.0, _factor(numbers, trace)):
        if factor:
            places = -numbers / factor
            whole = np.rint(places)
            near = np.isfinite(places).all() and (abs(places - whole) <= _UNIT * abs(whole)).all()
            if near and whole.min(initial=trace.first) >= trace.first and whole.max(initial=trace.first) < trace.count:
                return whole.astype(np.int64) - trace.first, factor
    start, count = _whole_parameter(numbers, trace)
    if count:
        return np.arange(start, start + count) - trace.first, 0.0
    return None, 0.0


def _factor(numbers: Array, trace: Trace) -> float:
    """What one parameter has been multiplied by as a whole; 0 where it has not."""
    for start, shape in trace.keys.values():
        count = int(np.prod(shape))
        if count == numbers.size:
            ratio = -numbers[0] / start
            if ratio and np.allclose(-numbers, ratio * np.arange(start, start + count), rtol=_UNIT):
                return float(ratio)
    return 0.0


def _whole_parameter(numbers: Array, trace: Trace) -> tuple[int, int]:
    """The first parameter of as many elements as a tensor that is a function of parameters: (first, count).

    Of a function that leaves what it gives as it is, such as a normalisation, what it gives will do as its argument.
    """
    for start, shape in trace.keys.values():
        if int(np.prod(shape)) == numbers.size:
            return start, numbers.size
    return 0, 0
