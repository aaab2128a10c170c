"""A block's parameters from what a file holds: keys, shapes, hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from ..blocks.block import Array, Block
from ..errors import BlockError, GraphSurgeryError, WeightsError, option
from ..feature_map import FeatureMap
from ..messages import listed
from . import hints, host, key_alignment, refold, sources, variants
from .checkpoint import COUNTER, Checkpoint, Fitted, squeezed, widened
from .settings_conflict import check_overruled, resolve_settings

_EPSILON = "bn_eps"
_OF_ULTRALYTICS = 1e-3
_MOST = 12


def fitted(block: Block, feature: FeatureMap, part: Checkpoint, given: Mapping[str, object]) -> Fitted:
    """The block with the weights in ``part``; ``given`` are the hyper-parameters that the user asked for.

    WeightsError, in the user's terms, if they do not fit; it names what would.
    """
    fit = partial(_fit, feature=feature, part=part, asked={})
    reading = sources.resolve(_as_inserted(block, part, given), feature, part, given, fit)
    block, notes = reading.block, [*part.notes, *reading.notes]
    if block.has_epsilon:
        block, found = _with_epsilon(block, part, given)
        notes += found
    try:
        result = _fit(block, feature, part, given)
    except WeightsError as error:
        candidates, hint = hints.alternatives(block, feature, part, partial(_reads, feature=feature))
        read = None if hint else _otherwise(block, feature, part)
        if read is None:
            candidates, hint = (candidates, hint) if hint else hints.variants_like(block, feature, part)
            raise WeightsError(f"{error.message}{hint}", candidates=candidates) from None
        part, note = read
        result, notes = _fit(block, feature, part, given), [*notes, note]
    keys = {key for key in block.regrouped(part.arrays) if key not in part.spare and not key.endswith(COUNTER)}
    fit = partial(_fit, feature=feature, part=part, asked={})
    others = variants.find_others(result, feature, keys, part.name, fit)
    notes += others or sources.doubts(reading, result, feature, part.name, given, fit)
    return replace(result, warnings=(*notes, *result.warnings), source=part.name)


def without_weights(block: Block, feature: FeatureMap, part: Checkpoint) -> BlockError:
    """The error of a block that has no weights where a file of weights is given: what they may be instead."""
    candidates, hint = hints.alternatives(block, feature, part, partial(_reads, feature=feature))
    related = [each for each in hints.variants(block) if hints.share_keys(each, feature, part.arrays)]
    if not related:
        fault = f"{block.name} has no weights; drop {option('weights')}{hint}"
        return BlockError(fault, option="weights", candidates=candidates)
    ways = hint or f"; {hints.ways([each.spelled for each in related])} has such keys"
    fault = f"{block.spelled} has no weights, and {part.name} has some{ways}"
    return BlockError(fault, option="weights", candidates=candidates or [each.spelled for each in related])


def _reads(block: Block, part: Checkpoint, feature: FeatureMap) -> bool:
    """Whether a block can be had from a part of a file."""
    try:
        _fit(block, feature, part, {})
    except GraphSurgeryError:
        return False
    return True


def _otherwise(block: Block, feature: FeatureMap, part: Checkpoint) -> tuple[Checkpoint, str] | None:
    """The weights under the block's own keys where others lie beside them, or no port that is known has the keys, and
    what to say of that. None where they are not the block's, or an exporter named them.
    """
    if part.exported or "" in part.inserted or hints.keys_fit(block, feature, part.arrays):
        return None
    if keys := host.own_keys(block, feature, part.arrays):
        own = host.layers(keys.values())
        rest = [each for each in host.layers(part.arrays) if each not in own]
        note = f"{listed(rest, _MOST)} in {part.name} are taken for layers of the module around the block"
    elif keys := key_alignment.align(block, feature, part.arrays, part.name) or {}:
        note = (
            f"no port that is known has the keys in {part.name}; their shapes are those of {block.spelled}, as which "
            f"they are read: {key_alignment.described(keys)}; compare the result with the code that they come from"
        )
    else:
        return None
    return replace(part, arrays={ours: part.arrays[theirs] for ours, theirs in keys.items()}), note


def _as_inserted(block: Block, part: Checkpoint, given: Mapping[str, object]) -> Block:
    """The block with the hyper-parameters that it has in the ONNX file that the weights come from."""
    if "" not in part.inserted:
        return block
    module, settings = part.inserted[""]
    if module != block.spelled:
        raise WeightsError(f"{part.name} is {module}, not {block.spelled}")
    return block.with_values(**{**settings, **given})


def _with_epsilon(block: Block, part: Checkpoint, given: Mapping[str, object]) -> tuple[Block, list[str]]:
    """The block with the BatchNorm epsilon of the file, if the user gave none; a state_dict does not hold it."""
    found, current = sorted(set(part.epsilons.values())), block.values.get(_EPSILON)
    if _EPSILON in given or "" in part.inserted:
        differs = [eps for eps in found if eps != current]
        note = f"{_EPSILON} is {current} as asked for; the BatchNorms in {part.name} have "
        return block, [f"{note}{eps:g}" for eps in differs[:1]]
    if len(found) == 1:
        return block.with_values(**{_EPSILON: found[0]}), [f"{_EPSILON} is {found[0]:g}, read from {part.name}"]
    if found:
        values = ", ".join(f"{eps:g}" for eps in found)
        advice = option("settings", f"{_EPSILON}=VALUE")
        raise WeightsError(f"the BatchNorms in {part.name} have the epsilons {values}; use {advice}")
    if part.ultralytics and current != _OF_ULTRALYTICS and any(key.endswith("running_var") for key in part.arrays):
        default = f"{current}, the default" if current is not None else "the module's own"
        return block, [
            f"{_EPSILON} is {default}, since {part.name} does not tell; models built by Ultralytics have "
            f"{_OF_ULTRALYTICS:g}: {option('settings', f'{_EPSILON}={_OF_ULTRALYTICS:g}')}"
        ]
    return block, []


def _fit(block: Block, feature: FeatureMap, part: Checkpoint, asked: Mapping[str, object]) -> Fitted:
    """The block with the hyper-parameters that the weights imply, and the weights by official key.

    ``asked`` are the hyper-parameters that the user gave. WeightsError, in the user's terms, for a missing, extra or
    mis-shaped key, and for weights that contradict the user.
    """
    given = _by_official_key(block, part)
    try:
        inferred = block.settings_from_weights({k: tuple(v.shape) or (1,) for k, (_, v) in given.items()})
        block = _with_settings(block, feature, inferred, asked, part.name, given)
        block.check(feature)
    except BlockError as error:
        raise WeightsError(f"the weights in {part.name} do not fit: {error.message}") from None
    wanted, notes = block.parameters(feature), list[str]()
    if part.exported:
        places = refold.placed(wanted, given)
        paths = (block.official_key(f"{path}.bias").rpartition(".")[0] for path in part.unbiased)
        before = refold.renamed(given, places)
        given = refold.unfolded(block, wanted, before, frozenset(places.get(path, path) for path in paths))
        notes = refold.notes(wanted, before, given, part.name)
    given = refold.unbiased(wanted, given)
    missing = [key for key in wanted if key not in given]
    extra = [key for official, (key, _) in given.items() if official not in wanted and key not in part.spare]
    if missing or extra:
        folded = part.exported and len(missing) < len(wanted)
        lacks = f"lacks {listed(missing, _MOST)}" + ", which its exporter folded into constants of its own" * folded
        parts = [lacks] * bool(missing) + [f"has {listed(extra, _MOST)}, which the block does not"] * bool(extra)
        advice = "; take the weights from the checkpoint that was exported" * (folded and bool(missing))
        fault = f"{part.name} does not fit {block.spelled} at {feature.label}"
        raise WeightsError(f"{fault}: it {' and '.join(parts)}{advice}")
    shaped = {key: _shaped(block, feature, *given[key], shape) for key, shape in wanted.items()}
    check_overruled(block, feature, inferred, asked, part.name)
    return Fitted(block, shaped, tuple(notes))


def _with_settings(
    block: Block,
    feature: FeatureMap,
    inferred: Mapping[str, object],
    asked: Mapping[str, object],
    source: str,
    given: refold.Given,
) -> Block:
    """The block with the hyper-parameters of the weights, or of the user where unknown keys may be of these."""
    try:
        return resolve_settings(block, feature, inferred, asked, source)
    except WeightsError:
        if given.keys() <= block.with_values(**inferred).parameters(feature).keys():
            raise
        return block.with_values(**{**inferred, **{name: block.values[name] for name in asked}})


def _by_official_key(block: Block, part: Checkpoint) -> refold.Given:
    """The weights by official key. What a file has under several keys is taken from the one that is its own."""
    given: refold.Given = {}
    arrays = block.regrouped(part.arrays)
    for key in sorted(arrays, key=lambda each: each in part.spare):
        official = block.official_key(key)
        if key.rpartition(".")[2] == COUNTER or (key in part.spare and official in given):
            continue
        if official in given:
            raise WeightsError(f"{part.name} gives {official} twice, as {given[official][0]} and as {key}")
        given[official] = (key, arrays[key])
    return given


def _shaped(block: Block, feature: FeatureMap, key: str, values: Array, shape: tuple[int, ...]) -> Array:
    """The array in the wanted shape: a linear layer's [o, i] is a 1x1 convolution's [o, i, 1, 1]."""
    if squeezed(values.shape) == squeezed(shape):
        return widened(values).reshape(shape)
    made_for = _channels_of(block, feature, key, values.shape, shape)
    if made_for is not None:
        raise WeightsError(f"{feature.label} has {feature.channels} channels; {key} is made for {made_for}")
    raise WeightsError(
        f"{key} has the shape {list(values.shape)}; {block.spelled} at {feature.label} needs {list(shape)}"
    )


def _channels_of(
    block: Block, feature: FeatureMap, key: str, found: tuple[int, ...], wanted: tuple[int, ...]
) -> int | None:
    """The number of channels that would make the wanted shape the found one; None if channels alone cannot."""
    for size in dict.fromkeys(found):
        if size == feature.channels:
            continue
        other = replace(feature, channels=size)
        try:
            block.check(other)
            shapes = block.parameters(other)
        except (BlockError, ValueError):
            continue
        if squeezed(shapes.get(block.official_key(key), ())) == squeezed(found):
            return size
    return None
