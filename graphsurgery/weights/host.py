"""Host: the module around a block, where the layers of both lie side by side under one prefix.

A residual block often has its attention so: ``conv1``, ``bn1``, ``fc1``, ``fc2``. What is left over by the block's own
keys is the host's if it is convolutions with BatchNorms of their widths, by names that say so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from ..blocks.block import Array, Block
from ..feature_map import FeatureMap
from .checkpoint import COUNTER
from .implied import implied_parameters

_OF_HOSTS = {"conv", "cv", "bn", "norm", "downsample", "shortcut", "skip", "residual"}
_OF_GATES = {"fc", "mlp", "linear", "se", "ca", "sa", "gate", "attn", "att", "attention", "spatial", "channel"}


def own_keys(block: Block, feature: FeatureMap, arrays: Mapping[str, Array]) -> dict[str, str]:
    """The keys of a file that are the block's, by official key, where every other is the host's; {} where that is not
    so, or there are no others.
    """
    official = {block.official_key(key): key for key in arrays} | {key: key for key in arrays}
    named = {ours: key for ours, key in official.items() if block.official_key(ours) == ours}
    wanted = implied_parameters(block, feature, {ours: arrays[key].shape for ours, key in named.items()})
    own = {ours: named[ours] for ours in wanted if ours in named}
    rest = {key: values for key, values in arrays.items() if key not in own.values() and not key.endswith(COUNTER)}
    if not wanted or len(own) < len(wanted) or not _is_a_host(rest, own.values()):
        return {}
    return own


def layers(keys: Iterable[str]) -> list[str]:
    """The layers that some keys are of, each once."""
    return list(dict.fromkeys(key.rpartition(".")[0] for key in keys))


def _is_a_host(rest: Mapping[str, Array], own: Collection[str]) -> bool:
    """Whether keys are those of a host, and what is the block's is told from it by its names."""
    if not rest or not all(map(_is_of_a_host, layers(rest))) or all(map(_is_of_a_host, layers(own))):
        return False
    inside = {path.partition(".")[0] for path in layers(own) if "." in path}
    convolutions = {key: values.shape for key, values in rest.items() if values.ndim > 1}
    widths = {size for shape in convolutions.values() for size in shape[:2]}
    norms = [values.shape[0] for key, values in rest.items() if key.endswith("running_mean")]
    sound = all(key.endswith(".weight") and len(shape) == 4 for key, shape in convolutions.items())
    return (
        sound
        and bool(convolutions and norms)
        and widths >= {*norms}
        and not inside & {key.partition(".")[0] for key in rest}
    )


def _is_of_a_host(path: str) -> bool:
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", path)}
    return bool(words & _OF_HOSTS) and not words & _OF_GATES
