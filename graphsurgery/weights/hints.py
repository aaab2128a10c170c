"""What a weights file has instead of what was asked for: weights that fit elsewhere in it, or another block's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..blocks.block import Array, Block
from ..blocks.registry import all_blocks
from ..errors import GraphSurgeryError
from ..feature_map import FeatureMap
from ..messages import listed
from .checkpoint import Checkpoint

_MOST = 4


def hint(block: Block, feature: FeatureMap, part: Checkpoint) -> str:
    """A clause to put after "... does not fit"; "" if nothing is found, or the keys fit and only the shapes do not."""
    if not part.arrays or keys_fit(block, feature, part.arrays):
        return ""
    others = [each for each in _alternatives(block) if keys_fit(each, feature, part.arrays)]
    if others:
        return f"; its keys look like those of {listed([each.spelled for each in others], _MOST, ' or')}"
    return places_hint(block, feature, part.whole or part)


def places_hint(block: Block, feature: FeatureMap, whole: Checkpoint) -> str:
    """A clause that names the prefixes in a file under which the block's keys lie; "" if there are none."""
    found = {place for place, arrays in _groups(whole.arrays).items() if keys_fit(block, feature, arrays)}
    found |= {name for name, (module, _) in whole.inserted.items() if module == block.spelled}
    places = sorted(place for place in found if not any(place.startswith(f"{outer}.") for outer in found))
    return f"; weights that look like {block.spelled} lie under {listed(places, _MOST, ' and')}" if places else ""


def keys_fit(block: Block, feature: FeatureMap, arrays: Mapping[str, Array]) -> bool:
    """Whether these are a block's keys; shapes are not looked at, so that weights for other channels fit."""
    try:
        arrays = block.regrouped(arrays)
        given = {block.official_key(key): key for key in arrays if not key.endswith("num_batches_tracked")}
        inferred = block.settings_from_weights({new: tuple(arrays[key].shape) or (1,) for new, key in given.items()})
        wanted = (block.with_values(**inferred) if inferred else block).parameters(feature)
    except (GraphSurgeryError, ValueError, IndexError, KeyError, ZeroDivisionError):  # shapes that it cannot have
        return False
    return bool(wanted) and wanted.keys() == given.keys()


def _alternatives(block: Block) -> Iterator[Block]:
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
