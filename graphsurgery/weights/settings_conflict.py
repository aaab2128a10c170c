"""Check the user's settings against the shapes of the given weights."""

from __future__ import annotations

from collections.abc import Mapping

from ..blocks.block import Block
from ..blocks.setting import Setting, Value
from ..errors import BlockError, WeightsError
from ..feature_map import FeatureMap


def resolve_settings(
    block: Block, feature: FeatureMap, inferred: Mapping[str, object], given: Mapping[str, object], source: str
) -> Block:
    """The block with the hyper-parameters that follow from the weights, and those that the user gave.

    WeightsError where the two contradict each other: where the weights do not have the shapes that the user's values
    ask for.
    """
    of_weights = block.with_values(**inferred)
    asked = {name: block.values[name] for name in given if block.values.get(name) is not None}
    merged = {**of_weights.values, **{name: asked[name] for name in inferred if name in asked}}
    shapes = _shapes(of_weights, feature, {})
    for name in asked:
        if asked[name] != of_weights.values[name] and _shapes(of_weights, feature, {name: asked[name]}) != shapes:
            raise WeightsError(_contradiction(source, name, asked, {name: of_weights.values[name]}))
    return block.with_values(**merged)


def check_overruled(
    block: Block, feature: FeatureMap, inferred: Mapping[str, object], given: Mapping[str, object], source: str
) -> None:
    """WeightsError where a value that the user gave would have made another one than the block has from its weights: a
    reduction, and the hidden width that overrules it.
    """
    free = [each.name for each in block.settings if each.default is None and each.name in inferred]
    follows = {name: block.values[name] for name in free if given.get(name) is None}
    if not follows:
        return
    asked = {name: block.values[name] for name in given if block.values.get(name) is not None}
    left_alone = block.with_values(**dict.fromkeys(follows))
    resulting, shapes = _shapes(block, feature, {}), _shapes(left_alone, feature, {})
    differs = [key for key in shapes if shapes[key] != resulting.get(key)] or ([] if shapes else [*resulting])
    settings = {each.name: each for each in block.settings if each.belongs_to(block.variant)}
    for name, value in asked.items():
        for other in _others(settings[name], value) if differs else ():
            changed = _shapes(left_alone, feature, {name: other})
            if any(key in changed and changed[key] != shapes.get(key) for key in differs):
                raise WeightsError(_contradiction(source, name, asked, follows))


def _others(setting: Setting, value: Value) -> list[Value]:
    """Values that would show whether a hyper-parameter has a say in the shapes."""
    if setting.choices is not None:
        return [each for each in setting.choices if each != value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [1, value * 2, value + 1]
    return [not value]


def _shapes(block: Block, feature: FeatureMap, values: Mapping[str, Value]) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters with other values; {} where there can be none."""
    try:
        return block.with_values(**values).parameters(feature)
    except (BlockError, ValueError, ArithmeticError):
        return {}


def _contradiction(source: str, name: str, asked: Mapping[str, Value], theirs: Mapping[str, Value]) -> str:
    values = ", ".join(f"{key}={_spelled(value)}" for key, value in theirs.items())
    return f"{name}={_spelled(asked[name])} was asked for, and the weights in {source} have {values}; leave {name} out"


def _spelled(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
