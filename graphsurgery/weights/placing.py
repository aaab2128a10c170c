"""Placing: which part of a file of weights is for a block at one place."""

from __future__ import annotations

import re

from ..blocks.block import Block
from ..errors import WeightsError
from ..feature_map import FeatureMap
from ..messages import listed
from . import hints
from .checkpoint import WRAPPERS, Checkpoint

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS = ("path", "block")
_MOST = 6


def part(whole: Checkpoint, prefix: str, block: Block, feature: FeatureMap) -> Checkpoint:
    """The weights under a prefix, in which ``{path}`` is the place's module path and ``{block}`` the block's name.

    Without a prefix, the whole of a file that holds one block, and of one that holds several the one at the place.
    WeightsError if there are none; it names the prefixes that fit the block.
    """
    written = _filled(prefix, block, feature) if prefix else _found(whole, block, feature)
    try:
        return whole.under(written)
    except WeightsError as error:
        places, hint = hints.places(block, feature, whole)
        raise WeightsError(f"{error.message}{hint}", candidates=places or error.candidates) from None


def _filled(prefix: str, block: Block, feature: FeatureMap) -> str:
    """A prefix with the values of its placeholders."""
    names = _PLACEHOLDER.findall(prefix)
    for name in names:
        if name not in _PLACEHOLDERS:
            raise WeightsError(
                f"{prefix!r} has the placeholder {{{name}}}: there are {{path}}, the module path of a place, and "
                "{block}, the name of the block",
                candidates=[f"{{{each}}}" for each in _PLACEHOLDERS],
            )
    if "path" in names and feature.path is None:
        raise WeightsError(f"{feature.label} has no module path to put for {{path}} in {prefix!r}; give the prefix")
    return _PLACEHOLDER.sub(lambda match: block.name if match[1] == "block" else feature.path or "", prefix)


def _found(whole: Checkpoint, block: Block, feature: FeatureMap) -> str:
    """The prefix of the weights at the place in a file that holds those of several blocks, or of all keys in a file
    that holds one; "" where neither is so.
    """
    if _is_one_block(whole, block, feature, ""):
        return ""
    inside = (path for path in hints.outer_paths(whole.arrays) if _is_one_block(whole, block, feature, path))
    if (only := next(inside, None)) or feature.path is None:
        return only or ""
    places, _ = hints.places(block, feature, whole)
    at = re.compile(f"{WRAPPERS}{re.escape(feature.path)}(?:\\.[^.]+)?")
    here = [place for place in places if at.fullmatch(place)]
    if len(here) > 1:
        own = [place for place in here if place.endswith(f".{block.name}")]
        if len(own) != 1:
            raise WeightsError(
                f"{whole.name} has weights that look like {block.spelled} at {feature.label} under "
                f"{listed(here, _MOST, ' and')}; give one of these prefixes",
                candidates=here,
            )
        return own[0]
    return here[0] if here else ""


def _is_one_block(whole: Checkpoint, block: Block, feature: FeatureMap, prefix: str) -> bool:
    """Whether the block's weights are what lies under a prefix."""
    try:
        return hints.keys_fit(block, feature, whole.under(prefix).arrays)
    except WeightsError:  # something in it is no weight
        return False
