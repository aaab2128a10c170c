"""Settings: which blocks of the catalogue, with which hyper-parameters, can have the weights of a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from functools import lru_cache
from itertools import islice, product
from math import prod

from ..blocks.block import Block
from ..blocks.registry import all_blocks, catalogue_block
from ..blocks.setting import Setting, Value
from ..errors import GraphSurgeryError
from ..feature_map import FeatureMap
from .reading import Reading

_MOST_SIZED = 600
"""combinations of hyper-parameters that decide on shapes, of one block"""
_MOST_FREE = 60
"""... and of those that do not"""
_EPSILON = 0.011
_DYNAMIC = 20
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
    feature = reading.part.feature
    deciding = [each for each in _own(block) if each.name in _deciding(block, feature)]
    values = [_candidates(each, block, reading, reading.sides) for each in deciding]
    seen = set[tuple[tuple[str, tuple[int, ...]], ...]]()
    for chosen in islice(product(*values), _MOST_SIZED):
        try:
            other = block.with_values(**dict(zip((each.name for each in deciding), chosen, strict=True)))
            other.check(feature)
            shapes = other.parameters(feature)
        except _Unusable:
            continue
        key = tuple(shapes.items())
        if key not in seen and may_be(shapes.values(), reading):
            seen.add(key)
            yield other


def free(block: Block, reading: Reading) -> Iterator[Block]:
    """The block with each choice of the others, what it has first."""
    feature = reading.part.feature
    others = [each for each in _own(block) if each.name not in _deciding(block, feature)]
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


def plausible(block: Block, reading: Reading) -> bool:
    """Whether a block has as many matrices as a part, whatever its hyper-parameters."""
    feature, given, tables = reading.part.feature, len(reading.matrices), reading.tables
    return any(
        count <= given + tables and (count >= given or (count and (given - count) % 2 == 0))
        for count in _counts(block.spelled, feature.channels, feature.height, feature.width)
    )


@lru_cache(4096)
def _counts(spelled: str, channels: int, height: int | None, width: int | None) -> frozenset[int]:
    """How many matrices a block has, with each of its settings the one way and the other."""
    block = catalogue_block(spelled)
    feature = FeatureMap(channels, height or _DYNAMIC, width or _DYNAMIC)
    found = set[int]()
    switches = [[(each.name, value) for value in _probes(each, feature)] for each in _own(block) if _is_switch(each)]
    for chosen in islice(product(*switches), 64):
        try:
            shapes = block.with_values(**dict(chosen)).parameters(feature)
        except _Unusable:
            continue
        found.add(sum(map(_is_matrix, shapes.values())))
    return frozenset(found or range(100))


def _is_switch(setting: Setting) -> bool:
    return setting.type is bool or setting.choices is not None


def may_be(shapes: Sequence[tuple[int, ...]] | object, reading: Reading) -> bool:
    """Whether parameters of these shapes can be the weights of a part: every matrix of the part is one of them, or a
    share of one; what else they have can only be a table, or something that is multiplied or added.
    """
    wanted = Counter(prod(shape) for shape in shapes if _is_matrix(shape))  # type: ignore[attr-defined]
    given = Counter(reading.matrices)
    lacking, spare = wanted - given, given - wanted
    if spare:
        if not lacking or sum(spare.elements()) > sum(lacking.elements()):
            return False
        if max(lacking) < 2 * min(spare):
            return False
        return True
    return sum(lacking.values()) <= reading.tables


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


def _deciding(block: Block, feature: FeatureMap) -> frozenset[str]:
    """The settings that decide on the shapes of a block's parameters."""
    return _deciding_at(block.spelled, feature.channels, feature.height, feature.width)


@lru_cache(4096)
def _deciding_at(spelled: str, channels: int, height: int | None, width: int | None) -> frozenset[str]:
    block, feature = catalogue_block(spelled), FeatureMap(channels, height, width)
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


def _candidates(setting: Setting, block: Block, reading: Reading, integers: Set[int]) -> list[Value]:
    """The values of a setting to try, the block's own first."""
    own = block.values[setting.name]
    if setting.choices is not None:
        return list(dict.fromkeys([own, *setting.choices]))
    if setting.type is bool:
        return [own, not own]
    if setting.type is int:
        channels = reading.part.feature.channels
        least = int(setting.minimum or 1)
        found = sorted(each for each in integers if least <= each <= 16 * channels)
        if setting.name in ("heads", "num_heads", "groups", "head_num", "local_heads"):
            found = [each for each in found if channels % each == 0 or each <= 16]
        if setting.name.startswith(("kernel", "k_size", "window", "topk", "area", "dw_kernel", "pe_kernel", "stride")):
            found = [each for each in found if each <= 64]
        if setting.name in ("reduction", "factor"):
            found = sorted({channels // each for each in found if each and channels % each == 0})
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
