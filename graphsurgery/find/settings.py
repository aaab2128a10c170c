"""Settings: which blocks of the catalogue, with which hyper-parameters, can have the weights of a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from functools import lru_cache
from itertools import islice, product
from math import prod

from ..blocks.block import Block
from ..blocks.registry import all_blocks
from ..blocks.setting import Setting, Value
from ..errors import GraphSurgeryError
from ..feature_map import FeatureMap
from .reading import Reading

_MOST_SIZED = 600
"""combinations of hyper-parameters that decide on shapes, of one block"""
_MOST_FREE = 60
"""... and of those that do not"""
_EPSILON = 0.011
_USUAL_WINDOW = 16
"""the largest side of a window that is tried where no softmax tells how many positions it has"""
_USUAL = FeatureMap(256, 16, 16, batch=1)
"""where it is looked at what of a block does not depend on the map"""
_UNNEEDED = frozenset({"reduction", "mlp_ratio", "exp_ratio"})
"""settings that another, ``hidden``, overrules"""

_Unusable = (GraphSurgeryError, ValueError, IndexError, KeyError, ArithmeticError, TypeError)


@lru_cache(None)
def catalogue() -> tuple[Block, ...]:
    """Every block in every variant, those first that people ask for most: of two that are the same function with the
    weights of a part, that is the one to be named.
    """
    blocks = sorted(all_blocks().values(), key=lambda each: each.demand)
    return tuple(each(variant) for each in blocks for variant in each.variants or (None,))


def sized(block: Block, reading: Reading) -> Iterator[Block]:
    """The block with each choice of the hyper-parameters that decide on shapes with which its weights are of the sizes
    of those in a part.
    """
    feature = replace(reading.part.feature, label="")
    deciding = [each for each in _own(block) if each.name in _deciding(block)]
    values = [_candidates(each, block, reading, frozenset()) for each in deciding]
    names = tuple(each.name for each in deciding)
    seen = set[_Shapes]()
    for chosen in islice(product(*values), _MOST_SIZED):
        if (made := _with_shapes(block, names, chosen, feature)) is not None:
            other, shapes, matrices = made
            if shapes not in seen and may_be(matrices, reading):
                seen.add(shapes)
                yield other


_Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@lru_cache(1 << 15)
def _with_shapes(
    block: Block, names: Sequence[str], values: Sequence[Value], feature: FeatureMap
) -> tuple[Block, _Shapes, Counter[int]] | None:
    """(a block of the catalogue with these settings, the shapes of its parameters by key, how many matrices it has of
    each size); None where it cannot have them.
    """
    try:
        other = block.with_values(**dict(zip(names, values, strict=True)))
        other.check(feature)
        shapes = other.parameters(feature)
    except _Unusable:
        return None
    return other, tuple(shapes.items()), Counter(prod(shape) for shape in shapes.values() if _is_matrix(shape))


def plainest(blocks: Iterable[Block], reading: Reading) -> list[Block]:
    """The same blocks, those first that have no biases where the part has none: with zeros they are the same."""
    found = list(blocks)
    if reading.vectors or reading.tables:
        return found
    shapes = [each.parameters(reading.part.feature).values() for each in found]
    return [found[n] for n in sorted(range(len(found)), key=lambda n: not all(map(_is_matrix, shapes[n])))]


def free(block: Block, reading: Reading) -> Iterator[Block]:
    """The block with each choice of the others, what it has first."""
    feature = reading.part.feature
    others = [each for each in _own(block) if each.name not in _deciding(block)]
    values = [_candidates(each, block, reading, reading.integers) for each in others]
    names = [each.name for each in others]
    # near the defaults first: the choices in which few of them are others
    choices = sorted(islice(product(*(range(len(each)) for each in values)), 20 * _MOST_FREE), key=sum)
    for chosen in choices[:_MOST_FREE]:
        picked = {name: each[n] for name, each, n in zip(names, values, chosen, strict=True)}
        try:
            other = block.with_values(**picked)
            other.check(feature)
        except _Unusable:
            continue
        yield other


@lru_cache(None)
def usual(spelled: str) -> Block:
    """A block of the catalogue with its own settings."""
    return next(each for each in catalogue() if each.spelled == spelled)


def switches(block: Block) -> list[Setting]:
    """The settings of a block of which one of a few things is to be chosen."""
    return [each for each in _own(block) if _is_switch(each)]


def switched(block: Block) -> Iterator[Block]:
    """A block with each choice of its switches that make a difference to what it does, a few of them."""
    ways = [[(each.name, value) for value in _probes(each, _USUAL)] for each in switches(block)]
    for chosen in islice(product(*ways), 16):
        try:
            yield block.with_values(**dict(chosen))
        except _Unusable:
            continue


@lru_cache(1 << 14)
def plausible(
    sizes: tuple[int, ...], tables: int, vectors: int, channels: int, size: tuple[int | None, int | None]
) -> tuple[Block, ...]:
    """The blocks that can have matrices of these sizes at a map, whatever their hyper-parameters: as many, and those
    among them that are always of the same size. ``tables``: how many constants could be one, too; ``vectors``: how many
    numbers the other constants hold, of which one of a few columns may have been made.
    """
    given, count = Counter(sizes), len(sizes)
    found = []
    for block in catalogue():
        if not any(
            each <= count + max(tables, 1) and (each >= count or (each and (count - each) % 2 == 0))
            for each in _counts(block.spelled)
        ):
            continue
        lacking = _always(block.spelled, channels, size) - given
        shared = sum(n for each, n in lacking.items() if given[each // 3] > 1 or given[each // 2] > 1)
        if sum(lacking.values()) <= tables + shared or sum(lacking.elements()) <= vectors:
            found.append(block)
    return tuple(found)


@lru_cache(None)
def _counts(spelled: str) -> frozenset[int]:
    """How many matrices a block has, with each of its settings the one way and the other."""
    block = usual(spelled)
    found = set[int]()
    for each in switched(block):
        try:
            shapes = each.parameters(_USUAL)
        except _Unusable:
            continue
        found.add(sum(map(_is_matrix, shapes.values())))
    return frozenset(found or range(100))


@lru_cache(1 << 14)
def _always(spelled: str, channels: int, size: tuple[int | None, int | None]) -> Counter[int]:
    """The sizes of the matrices that a block has at a map whatever its settings."""
    block, feature = usual(spelled), FeatureMap(channels, *size)
    found: Counter[int] | None = None
    deciding = [each for each in _own(block) if each.name in _deciding(block)]
    for setting in [None, *deciding]:
        for value in _probes(setting, feature) if setting is not None else (None,):
            try:
                other = block.with_values(**{setting.name: value}) if setting is not None else block
                sizes = Counter(prod(shape) for shape in other.parameters(feature).values() if _is_matrix(shape))
            except _Unusable:
                continue
            found = sizes if found is None else found & sizes
    return found or Counter()


def _is_switch(setting: Setting) -> bool:
    return setting.type is bool or setting.choices is not None


def may_be(wanted: Counter[int], reading: Reading) -> bool:
    """Whether matrices of these sizes, so many of each, can be the weights of a part: every matrix of the part is one
    of them, or a share of one; what else they have can only be a table, or something that is multiplied or added.
    """
    given = Counter(reading.matrices)
    lacking, spare = wanted - given, given - wanted
    if _are_folded(lacking, spare, reading.part.feature):
        return True
    if spare:  # shares of a larger one, of which q, k and v are made
        whole = [size for size in lacking.elements() if size > max(spare)]
        if not whole or sum(whole) != sum(spare.elements()):
            return False
        lacking = Counter(size for size in lacking.elements() if size <= max(spare))
    return sum(lacking.values()) <= reading.tables or sum(lacking.elements()) <= reading.vectors


def _are_folded(lacking: Counter[int], spare: Counter[int], feature: FeatureMap) -> bool:
    """Whether the two matrices that a part lacks can be in the one that it has besides: a table [H, d] and one [W, d],
    added to [H * W, d].
    """
    if sum(spare.values()) != 1 or sum(lacking.values()) != 2 or feature.height is None or feature.width is None:
        return False
    (size,) = spare
    width, rest = divmod(size, feature.area)
    return not rest and sorted(lacking.elements()) == sorted((feature.height * width, feature.width * width))


def _is_matrix(shape: tuple[int, ...]) -> bool:
    return sum(size > 1 for size in shape) > 1


def plain(block: Block, feature: FeatureMap) -> Block:
    """The same block with its settings as one would write them: a reduction rather than a hidden width, and neither
    where it is the default.
    """
    if block.values.get("hidden") is None:
        return block
    shapes = _shapes(block, feature)
    hidden = block.integer("hidden")
    attempts: list[dict[str, object]] = [{"hidden": None}]
    if "reduction" in block.values and hidden and feature.channels % hidden == 0:
        attempts.append({"hidden": None, "reduction": feature.channels // hidden})
    for attempt in attempts:
        try:
            other = block.with_values(**attempt)
        except _Unusable:
            continue
        if _shapes(other, feature) == shapes:
            return other
    return block


def _shapes(block: Block, feature: FeatureMap) -> dict[str, tuple[int, ...]] | None:
    try:
        block.check(feature)
        return block.parameters(feature)
    except _Unusable:
        return None


def _own(block: Block) -> list[Setting]:
    skipped = _UNNEEDED if "hidden" in block.values else frozenset()
    return [each for each in block.settings if each.belongs_to(block.variant) and each.name not in skipped]


def _deciding(block: Block) -> frozenset[str]:
    """The settings that decide on the shapes of a block's parameters."""
    return _deciding_in(block.spelled)


@lru_cache(None)
def _deciding_in(spelled: str) -> frozenset[str]:
    block, feature = usual(spelled), _USUAL
    found = set[str]()
    for setting in _own(block):
        shapes = set[object]()
        for value in (*_probes(setting, feature), block.values[setting.name]):
            try:
                other = block.with_values(**{setting.name: value})
                shapes.add(tuple(other.parameters(feature).items()))
            except _Unusable:
                continue
        if len(shapes) > 1:
            found.add(setting.name)
    return frozenset(found)


def _probes(setting: Setting, feature: FeatureMap) -> Sequence[Value]:
    if setting.choices is not None:
        return setting.choices
    if setting.type is bool:
        return (False, True)
    if setting.type is int:
        return (1, 2, 3, 4, 8, 16, 32)
    return (0.5, 1.0, 2.0, 4.0)


_DIVIDING = ("heads", "num_heads", "groups", "head_num", "local_heads")
_HEADS = ("heads", "num_heads", "head_num", "local_heads")
_SIDES = ("kernel", "k_size", "window", "topk", "area", "dw_kernel", "pe_kernel", "stride", "h_kernel", "v_kernel")
_KERNELS = ("kernel", "k_size", "dw_kernel", "pe_kernel", "h_kernel", "v_kernel")
_WIDTHS = ("hidden", "c_m", "c_n", "pdim", "half", "qk_dim", "key_dim", "group_channels")
_RATIOS = ("reduction", "factor")
_LAYERS = ("depth",)
"""how many layers there are, each with weights of its own"""


def _of_weights(name: str, reading: Reading) -> Set[int]:
    """The values of a setting of that name that the shapes of a part's weights speak of."""
    channels = reading.part.feature.channels
    if name.startswith(_KERNELS):
        return reading.kernels
    if name in _WIDTHS:
        return reading.widths
    if name in _DIVIDING:
        sides = {side for side in reading.sides if side and channels % side == 0}
        return reading.sides | {channels // side for side in sides} | {channels // (2 * side) for side in sides}
    if name in _RATIOS:
        return {channels // each for each in reading.widths if each and channels % each == 0}
    return reading.sides


def _candidates(setting: Setting, block: Block, reading: Reading, integers: Set[int]) -> list[Value]:
    """The values of a setting to try, the block's own first."""
    own = block.values[setting.name]
    if setting.choices is not None:
        return list(dict.fromkeys([own, *setting.choices]))
    if setting.type is bool:
        return [own, not own]
    if setting.type is int:
        channels, least = reading.part.feature.channels, int(setting.minimum or 1)
        if setting.name in _deciding(block):
            integers = _of_weights(setting.name, reading)
        most = len(reading.uses) if setting.name in _LAYERS else 16 * channels
        found = sorted(each for each in integers if least <= each <= most)
        if setting.name in _DIVIDING:
            found = [each for each in found if channels % each == 0 or each <= 16]
            if setting.name in _HEADS and (softmaxes := reading.softmaxes):
                found = [each for each in found if may_be_heads(each, softmaxes, reading.part.feature)]
        elif setting.name.startswith(_SIDES):
            found = [each for each in found if each <= 64]
            if setting.name == "window":
                lengths = {length for _, _, length in reading.softmaxes}
                found = [each for each in found if each**2 in lengths or (not lengths and each <= _USUAL_WINDOW)]
        return list(dict.fromkeys([own, *found]))
    if setting.type is float:
        if "eps" in setting.name or setting.name == "e_lambda":
            found_numbers = [each for each in reading.scalars if 0 < each < _EPSILON]
            return list(dict.fromkeys([own, *found_numbers]))
        if setting.name in ("temperature", "attn_ratio", "mlp_ratio", "exp_ratio"):
            return [own]
        numbers = [each for each in reading.scalars if 0 < each < 64]
        return list(dict.fromkeys([own, *numbers]))
    return [own]


def may_be_heads(heads: int, softmaxes: Sequence[tuple[int, int, int]], feature: FeatureMap) -> bool:
    """Whether the softmaxes of a part can be of so many heads: each of the whole map, or of windows that cover it."""
    if feature.height is None or feature.width is None:
        return any(count % heads == 0 for count, _, _ in softmaxes)
    covered = [count // heads * rows for count, rows, _ in softmaxes if count % heads == 0 and count > heads]
    area = feature.height * feature.width
    return any(count == heads for count, _, _ in softmaxes) or any(area <= each <= 4 * area for each in covered)
