"""What a weights file has instead of what was asked for: weights that fit elsewhere in it, or another block's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from ..blocks.block import Array, Block
from ..blocks.registry import all_blocks
from ..errors import GraphSurgeryError, option
from ..feature_map import FeatureMap
from ..messages import listed
from . import host, key_alignment, refold
from .checkpoint import COUNTER, Checkpoint, may_be_of_a_block, squeezed
from .implied import implied_parameters

_MOST = 4


def alternatives(
    block: Block, feature: FeatureMap, part: Checkpoint, reads: Callable[[Block, Checkpoint], bool]
) -> tuple[list[str], str]:
    """What to give instead, and a clause that says so after "... does not fit".

    Nothing and "" where nothing is found, or where the keys fit and only the shapes do not. ``reads``: whether a block
    can be had from such a part, shapes and all.
    """
    if not part.arrays or keys_fit(block, feature, part.arrays):
        return [], ""
    others = [each for each in _others(block) if keys_fit(each, feature, part.arrays)]
    if others:
        sure = [each.spelled for each in others if reads(each, part)]
        names = sure or [each.spelled for each in others]
        advice = f"; use {option('module', sure[0])}" if len(sure) == 1 else ""
        return names, f"{advice}; its keys look like those of {listed(names, _MOST, ' or')}"
    beside = [each.spelled for each in variants(block) if host.own_keys(each, feature, part.arrays)]
    if beside:
        return beside, f"; {ways(beside)} has its keys among these"
    found, hint = places(block, feature, part.whole or part)
    return (found, hint) if found else _deeper(block, feature, part, reads)


def variants_like(block: Block, feature: FeatureMap, part: Checkpoint) -> tuple[list[str], str]:
    """The other variants of a block whose layers those in a part are by their shapes, and a clause that says so."""
    found = list[str]()
    for other in variants(block):
        with suppress(GraphSurgeryError):
            if key_alignment.align(other, feature, part.arrays, part.name):
                found.append(other.spelled)
    if not found:
        return [], ""
    return found, f"; {ways(found)} has layers of these shapes"


def _deeper(
    block: Block, feature: FeatureMap, part: Checkpoint, reads: Callable[[Block, Checkpoint], bool]
) -> tuple[list[str], str]:
    """Another block in one of the modules of a part, all that is in it: the gate of a block that has more, say."""
    for place in outer_paths(part.arrays):
        inner = part.under(place)
        names = [
            each.spelled for each in _others(block) if keys_fit(each, feature, inner.arrays) and reads(each, inner)
        ]
        if names:
            way = f"{option('module', names[0])} with {option('weights', within(part, place))}"
            return names, f"; {way} reads what lies under {place}"
    return [], ""


def ways(blocks: Sequence[str]) -> str:
    """How to ask for one of some blocks. (The text of an option is nothing that may be listed as a name.)"""
    return " or ".join(option("module", each) for each in blocks[:_MOST])


def within(part: Checkpoint, place: str) -> str:
    """FILE:PREFIX of a module in a part."""
    return f"{part.name}.{place}" if part.whole and part.name != part.whole.name else f"{part.name}:{place}"


def outer_paths(keys: Iterable[str]) -> list[str]:
    """The modules that all of some keys lie in, from the outermost to the innermost."""
    paths = [key.split(".")[:-1] for key in keys]
    shared = 0
    while paths and all(len(path) > shared and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    return [".".join(paths[0][: depth + 1]) for depth in range(shared)] if paths else []


def places(block: Block, feature: FeatureMap, whole: Checkpoint) -> tuple[list[str], str]:
    """The prefixes in a file under which the block's keys lie, and a clause that names them; "" if there are none."""
    groups = _groups(whole.arrays)
    found = {place for place, arrays in groups.items() if keys_fit(block, feature, arrays)}
    found |= {name for name, (module, _) in whole.inserted.items() if module == block.spelled}
    if not found:
        found = {place for place, arrays in groups.items() if host.own_keys(block, feature, arrays)}
    outer = sorted(place for place in found if not any(place.startswith(f"{other}.") for other in found))
    return outer, f"; weights that look like {block.spelled} lie under {listed(outer, _MOST, ' and')}" if outer else ""


def keys_fit(block: Block, feature: FeatureMap, arrays: Mapping[str, Array]) -> bool:
    """Whether these are a block's keys; the sizes are not looked at, so that weights for other channels fit."""
    if not all(map(may_be_of_a_block, arrays.values())):
        return False
    arrays = block.regrouped(arrays)
    given = {block.official_key(key): arrays[key].shape for key in arrays if not key.endswith(COUNTER)}
    wanted = implied_parameters(block, feature, given)
    for bias in refold.superfluous_biases(wanted, given):
        del given[bias]
    return (
        bool(wanted)
        and wanted.keys() == given.keys()
        and all(_alike(squeezed(given[key]), squeezed(shape)) for key, shape in wanted.items())
    )


def variants(block: Block) -> list[Block]:
    """The other variants of a block."""
    return [type(block)(each) for each in block.variants if each != block.variant]


def share_keys(block: Block, feature: FeatureMap, arrays: Mapping[str, Array]) -> bool:
    """Whether any of the keys is the block's."""
    return any(block.official_key(key) in block.parameters(feature) for key in arrays)


def _alike(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether the shapes are those of layers of one kind: a 3x3 convolution is no linear layer, whatever its sizes."""
    return len(found) == len(wanted) or max(len(found), len(wanted)) <= 2


def _others(block: Block) -> Iterator[Block]:
    """Every other block, and the other variants of this one."""
    for each in all_blocks().values():
        for variant in each.variants or (None,):
            other = each(variant)
            if other.spelled != block.spelled:
                yield other


def _groups(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """The keys below each module path of a file."""
    groups: dict[str, dict[str, Array]] = {}
    for key, values in arrays.items():
        parts = key.split(".")
        for depth in range(1, len(parts)):
            groups.setdefault(".".join(parts[:depth]), {})[".".join(parts[depth:])] = values
    return groups
