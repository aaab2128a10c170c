"""Key alignment: weights under keys that no port is known by, brought to a block's own keys by its structure.

The layers of a file are those of a block if they can be paired so that every shape is right. Where several pairings
are, the names decide: numbers in the order of the layers, and words for what a layer does. Where they do not, nothing
is read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product
from math import factorial, prod

from ..blocks.block import Array, Block
from ..errors import GraphSurgeryError, WeightsError
from ..feature_map import FeatureMap
from ..messages import listed
from .checkpoint import COUNTER, squeezed
from .implied import implied_parameters

_LEAVES = ("weight", "bias", "running_mean", "running_var")
_MOST_LAYERS = 24
_MOST_TRIED = 720
_MOST_PAIRINGS = 5040
_SHOWN = 4
_ROLES = {
    "first": ("down", "reduce", "reduction", "squeeze", "compress", "fc1", "conv1", "linear1", "cv1"),
    "second": ("up", "expand", "expansion", "excite", "excitation", "fc2", "conv2", "linear2", "cv2"),
    "query": ("q", "query", "queries", "wq"),
    "key": ("k", "key", "keys", "wk"),
    "value": ("v", "value", "values", "wv"),
    "height": ("h", "height"),
    "width": ("w", "width"),
    "mean": ("avg", "mean", "average"),
    "largest": ("max", "maximum"),
    "input": ("in",),
    "output": ("out", "o", "wo", "output"),
}
"""what a layer does -> words for it in the names of layers"""
_NUMBERED = frozenset({"fc1", "conv1", "linear1", "cv1", "fc2", "conv2", "linear2", "cv2"})
"""words that say so in a block's own names only: others may count from 0"""


@dataclass(frozen=True)
class _Layer:
    """A layer, or a parameter that is in none."""

    path: str
    shapes: Mapping[str, tuple[int, ...]]
    """by the last word of the key; "" for a parameter that is in no layer"""
    index: int
    known: str = ""
    """what a known port has in its place, in the words of the block"""

    @property
    def kind(self) -> str:
        """What no two layers that can stand for each other differ in."""
        if "running_mean" in self.shapes:
            return "normalisation"
        return "vector" if max(map(len, self.shapes.values())) < 2 else "matrix"

    def key(self, leaf: str) -> str:
        """That of one of its parameters."""
        return ".".join(filter(None, (self.path, leaf)))


_Pairing = tuple[tuple[_Layer, _Layer], ...]
"""(a layer of the block, one of the file)"""


def align(block: Block, feature: FeatureMap, arrays: Mapping[str, Array], source: str) -> dict[str, str] | None:
    """The keys of a file by the block's own; None where the layers are not those of the block.

    WeightsError where they are, and which is which cannot be told.
    """
    theirs = [
        replace(each, known=_split(block.official_key(each.key(next(iter(each.shapes)))))[0])
        for each in _layers({key: values.shape for key, values in arrays.items() if not key.endswith(COUNTER)})
    ]
    if not 0 < len(theirs) <= _MOST_LAYERS:
        return None
    ways = list(_ways(block, feature, theirs))
    if not ways:
        return None
    best, ways = (_best(ways), ways) if _are_few(theirs) else _best_exchange(ways[0])
    if best is None:
        raise WeightsError(_doubtful(block, ways, source))
    return {ours.key(leaf): their.key(leaf) for ours, their in best for leaf in their.shapes}


def described(keys: Mapping[str, str]) -> str:
    """Which layer is which, for a message: ``fc1 = mlp.0, fc2 = mlp.2``."""
    pairs = dict.fromkeys((_split(ours)[0] or ours, _split(theirs)[0] or theirs) for ours, theirs in keys.items())
    return listed([f"{ours} = {theirs}" for ours, theirs in pairs if ours != theirs], _SHOWN)


def _split(key: str) -> tuple[str, str]:
    """(layer, last word) of a key; a parameter that is in no layer is one itself."""
    path, _, leaf = key.rpartition(".")
    return (path, leaf) if leaf in _LEAVES else (key, "")


def _layers(shapes: Mapping[str, tuple[int, ...]]) -> list[_Layer]:
    grouped: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        path, leaf = _split(key)
        grouped.setdefault(path, {})[leaf] = tuple(shape)
    return [_Layer(path, found, index) for index, (path, found) in enumerate(grouped.items())]


# ---------------------------------------------------------------------- the pairings that fit


def _ways(block: Block, feature: FeatureMap, theirs: Sequence[_Layer]) -> Iterator[_Pairing]:
    """Every pairing with which all shapes are right; of very many, the one in the order of the layers."""
    seen = set[_Names]()
    for form in _forms(block):
        try:
            ours = _layers(form.parameters(feature))
        except (GraphSurgeryError, ValueError, ArithmeticError):
            continue
        for pairing in _pairings(ours, theirs):
            if (names := _names(pairing)) not in seen and _fits(form, feature, pairing):
                seen.add(names)
                yield pairing


_Names = tuple[tuple[str, str], ...]


def _names(pairing: _Pairing) -> _Names:
    return tuple(sorted((ours.path, their.path) for ours, their in pairing))


def _forms(block: Block) -> Iterator[Block]:
    """The block, and with each of its switches the other way: a position term that is there or not, say."""
    yield block
    for name, value in block.values.items():
        if isinstance(value, bool):
            yield block.with_values(**{name: not value})


def _pairings(ours: Sequence[_Layer], theirs: Sequence[_Layer]) -> Iterator[_Pairing]:
    kinds = dict.fromkeys(layer.kind for layer in ours)
    groups = [([a for a in ours if a.kind == kind], [b for b in theirs if b.kind == kind]) for kind in kinds]
    if len(ours) != len(theirs) or any(len(a) != len(b) for a, b in groups):
        return
    for order in product(*(permutations(b) for _, b in groups)) if _are_few(ours) else [[b for _, b in groups]]:
        yield tuple(pair for (a, _), b in zip(groups, order, strict=True) for pair in zip(a, b, strict=True))


def _are_few(layers: Sequence[_Layer]) -> bool:
    """Whether all ways in which layers can stand for those of a file may be tried."""
    kinds = Counter(layer.kind for layer in layers)
    return prod(map(factorial, kinds.values())) <= _MOST_TRIED


def _fits(block: Block, feature: FeatureMap, pairing: _Pairing) -> bool:
    """Whether all shapes are right, with the hyper-parameters that follow from them."""
    given = {ours.key(leaf): shape for ours, their in pairing for leaf, shape in their.shapes.items()}
    wanted = implied_parameters(block, feature, given, checked=True)
    return wanted.keys() == given.keys() and all(squeezed(wanted[key]) == squeezed(given[key]) for key in wanted)


# ---------------------------------------------------------------------- what the names say


def _best(ways: Sequence[_Pairing]) -> _Pairing | None:
    """The pairing that the names speak for more than for any other; None where there is none."""
    if len(ways) == 1:
        return ways[0]
    scores = [_evidence(way) for way in ways]
    first, second = sorted(scores, reverse=True)[:2]
    return ways[scores.index(first)] if first > second else None


def _best_exchange(pairing: _Pairing) -> tuple[_Pairing | None, list[_Pairing]]:
    """The best of a pairing that fits and of those with layers of equal shapes exchanged, and some of these."""
    groups: dict[object, list[_Layer]] = {}
    for _, their in pairing:
        groups.setdefault(tuple(sorted(their.shapes.items())), []).append(their)
    few = prod(factorial(len(group)) for group in groups.values()) <= _MOST_PAIRINGS
    ways = list[_Pairing]()
    for orders in product(*(permutations(group) for group in groups.values())):
        instead = {
            a.path: b
            for group, order in zip(groups.values(), orders, strict=True)
            for a, b in zip(group, order, strict=True)
        }
        ways.append(tuple((ours, instead[their.path]) for ours, their in pairing))
        if len(ways) == 2 and not few:
            return None, ways
    return _best(ways), ways


def _evidence(pairing: _Pairing) -> int:
    """How many names speak for a pairing, less those that speak against it."""
    score = sum(_agreement(_roles(a.path), _roles(b.path, of_file=True)) for a, b in pairing)
    score += sum((b.known == a.path) + _same_word(a.path, b.path) for a, b in pairing)
    by_number, in_order = 0, True
    for (one, one_there), (two, two_there) in combinations(pairing, 2):
        number = _order(one_there.path, two_there.path)
        in_order &= not number or (number < 0) == (one.index < two.index)
        by_number += _order(one.path, two.path) * number * (one_there.shapes == two_there.shapes)
        score += _parent(one.path) == _parent(two.path) != "" and _parent(one_there.path) == _parent(two_there.path)
    return score + by_number * in_order  # numbers that are not in the order of the layers say nothing


def _same_word(ours: str, theirs: str) -> bool:
    """Whether the last words are equal, and more than numbers."""
    word = ours.rpartition(".")[2]
    return word == theirs.rpartition(".")[2] and not word.isdigit()


def _agreement(ours: frozenset[str], theirs: frozenset[str]) -> int:
    return 0 if not ours or not theirs else 1 if ours & theirs else -1


def _roles(path: str, *, of_file: bool = False) -> frozenset[str]:
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+|\d+", path)} - (
        _NUMBERED if of_file else set()
    )
    return frozenset(role for role, known in _ROLES.items() if words & set(known))


def _order(one: str, two: str) -> int:
    """-1 or 1 where two names differ in a number alone, which is smaller or larger in the first; else 0."""
    first, second = re.split(r"(\d+)", one), re.split(r"(\d+)", two)
    if len(first) != len(second):
        return 0
    apart = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
    if len(apart) != 1 or not (apart[0][0].isdigit() and apart[0][1].isdigit()):
        return 0
    return 1 if int(apart[0][0]) > int(apart[0][1]) else -1


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _doubtful(block: Block, ways: Sequence[_Pairing], source: str) -> str:
    """Which layers it is about, and what to do."""
    shapes, candidates = dict[str, tuple[int, ...]](), dict[str, set[str]]()
    for way in ways:
        for ours, their in way:
            candidates.setdefault(ours.path, set()).add(their.path)
            shapes[their.path] = max(their.shapes.values(), key=len)
    place, theirs = next((path, sorted(found)) for path, found in candidates.items() if len(found) > 1)
    return (
        f"{source} has the layers of {block.spelled} under keys that no port is known by, and {_both(theirs)} both fit "
        f"{place} ({list(shapes[theirs[0]])}); rename its keys to {listed(_own_names(ways[0]), _SHOWN)}"
    )


def _both(names: Sequence[str]) -> str:
    return f"{names[0]} and {names[1]}"


def _own_names(pairing: _Pairing) -> list[str]:
    return [ours.key("weight" if "weight" in ours.shapes else "") for ours, _ in pairing]
