"""Check the user's settings against the shapes of the given weights."""

from __future__ import annotations

from collections.abc import Mapping

from ..blocks.block import Block
from ..errors import BlockError, WeightsError
from ..feature_map import FeatureMap

_Value = int | float | bool | None


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
    for name, value in asked.items():
        for other in _others(value) if differs else ():
            changed = _shapes(left_alone, feature, {name: other})
            if any(key in changed and changed[key] != shapes.get(key) for key in differs):
                raise WeightsError(_contradiction(source, name, asked, follows))


def _others(value: _Value) -> list[_Value]:
    """Values that would show whether a hyper-parameter has a say in the shapes."""
    if isinstance(value, bool) or value is None:
        return [not value]
    return [1, value * 2, value + 1]


def _shapes(block: Block, feature: FeatureMap, values: Mapping[str, _Value]) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters with other values; {} where there can be none."""
    try:
        return block.with_values(**values).parameters(feature)
    except (BlockError, ValueError, ArithmeticError):
        return {}


def _contradiction(source: str, name: str, asked: Mapping[str, _Value], theirs: Mapping[str, _Value]) -> str:
    values = ", ".join(f"{key}={_spelled(value)}" for key, value in theirs.items())
    return f"{name}={_spelled(asked[name])} was asked for, and the weights in {source} have {values}; leave {name} out"


def _spelled(value: _Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
