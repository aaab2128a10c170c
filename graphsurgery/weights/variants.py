"""Weights whose keys are those of another variant of the block, which would take them and compute something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onnx.numpy_helper import to_array

from ..blocks.block import Block
from ..errors import GraphSurgeryError
from ..feature_map import FeatureMap
from ..template.template import Template
from .checkpoint import Fitted

_OPSET, _IR_VERSION = 18, 8


def find_others(
    result: Fitted, feature: FeatureMap, keys: set[str], source: str, fit: Callable[[Block], Fitted]
) -> list[str]:
    """A warning for each other variant whose own keys a file has, if it is another function at the site.

    ``result``: the block and its weights; ``keys``: those in the file, none of them renamed; ``fit`` fits another
    variant to the same file.
    """
    block = result.block
    if keys == set(result.arrays):
        return []
    return [
        f"the keys in {source} are those of {other.block.spelled} ({block.variants[str(other.block.variant)]}), which "
        f"is another function at {feature.label} than {block.spelled}"
        for other in _others(block, fit)
        if keys == set(other.arrays) and not same_function(result, other, feature)
    ]


def same_function(one: Fitted, other: Fitted, feature: FeatureMap) -> bool:
    """Whether two blocks with their weights write the same operators with the same constants at a feature map."""
    return _template(one, feature) == _template(other, feature)


def _others(block: Block, fit: Callable[[Block], Fitted]) -> Iterator[Fitted]:
    for variant in block.variants:
        if variant != block.variant:
            known = type(block)(variant).values
            settings = {name: value for name, value in block.values.items() if name in known}
            try:
                yield fit(type(block)(variant, **settings))
            except GraphSurgeryError:
                continue


def _template(fitted: Fitted, feature: FeatureMap) -> list[object]:
    """What a block emits, in a form that is equal for equal templates whatever their tensors are called."""
    block, t = fitted.block, Template(feature, opset=_OPSET, weights=fitted.arrays)
    output = block.emit(t, block.choose(t, block.lowerings(t.feature, _OPSET)))
    subgraph = t.export(output, ir_version=_IR_VERSION)
    values = {each.name: (each.data_type, [*each.dims], to_array(each).tobytes()) for each in subgraph.initializers}
    numbers: dict[str, int] = {}
    parts: list[object] = []
    for node in subgraph.nodes:
        names = [*node.input, *node.output]
        new = [values.get(name) for name in names if name not in numbers]
        parts.append((node.op_type, [each.SerializeToString() for each in node.attribute], new))
        parts.append([numbers.setdefault(name, len(numbers)) for name in names])
    return parts
