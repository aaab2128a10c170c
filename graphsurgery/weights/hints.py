"""What a weights file has instead of what was asked for: weights that fit elsewhere in it, or another block's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..blocks.block import Array, Block
from ..blocks.registry import all_blocks
from ..errors import GraphSurgeryError
from ..feature_map import FeatureMap
from ..messages import listed
from .checkpoint import Checkpoint, may_be_of_a_block

_MOST = 4


def alternatives(block: Block, feature: FeatureMap, part: Checkpoint) -> tuple[list[str], str]:
    """What to give instead, and a clause that says so after "... does not fit".

    Nothing and "" where nothing is found, or where the keys fit and only the shapes do not.
    """
    if not part.arrays or keys_fit(block, feature, part.arrays):
        return [], ""
    others = [each.spelled for each in _others(block) if keys_fit(each, feature, part.arrays)]
    if others:
        return others, f"; its keys look like those of {listed(others, _MOST, ' or')}"
    return places(block, feature, part.whole or part)


def places(block: Block, feature: FeatureMap, whole: Checkpoint) -> tuple[list[str], str]:
    """The prefixes in a file under which the block's keys lie, and a clause that names them; "" if there are none."""
    found = {place for place, arrays in _groups(whole.arrays).items() if keys_fit(block, feature, arrays)}
    found |= {name for name, (module, _) in whole.inserted.items() if module == block.spelled}
    outer = sorted(place for place in found if not any(place.startswith(f"{other}.") for other in found))
    return outer, f"; weights that look like {block.spelled} lie under {listed(outer, _MOST, ' and')}" if outer else ""


def keys_fit(block: Block, feature: FeatureMap, arrays: Mapping[str, Array]) -> bool:
    """Whether these are a block's keys; shapes are not looked at, so that weights for other channels fit."""
    if not all(map(may_be_of_a_block, arrays.values())):
        return False
    try:
        arrays = block.regrouped(arrays)
        given = {block.official_key(key): key for key in arrays if not key.endswith("num_batches_tracked")}
        inferred = block.settings_from_weights({new: tuple(arrays[key].shape) or (1,) for new, key in given.items()})
        wanted = (block.with_values(**inferred) if inferred else block).parameters(feature)
    except (GraphSurgeryError, ValueError, IndexError, KeyError, ZeroDivisionError):  # shapes that it cannot have
        return False
    return bool(wanted) and wanted.keys() == given.keys()


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
