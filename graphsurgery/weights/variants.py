"""Weights whose keys are those of another variant of the block, which would take them and compute something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..blocks.block import Array, Block
from ..errors import GraphSurgeryError
from ..feature_map import FeatureMap
from ..template.subgraph import Subgraph
from ..template.template import Template

_OPSET, _IR_VERSION = 18, 8
_Fit = tuple[Block, Mapping[str, Array]]


def find_others(
    result: _Fit, feature: FeatureMap, keys: set[str], source: str, fit: Callable[[Block], _Fit]
) -> list[str]:
    """A warning for each other variant whose own keys a file has, if it is another function at the site.

    ``result``: the block and its weights; ``keys``: those in the file, none of them renamed; ``fit`` fits another
    variant to the same file.
    """
    block, arrays = result
    if keys == set(arrays):
        return []
    return [
        f"the keys in {source} are those of {other.spelled} ({block.variants[str(other.variant)]}), which is another "
        f"function at {feature.label} than {block.spelled}"
        for other, theirs in _others(block, fit)
        if keys == set(theirs) and _template(block, arrays, feature) != _template(other, theirs, feature)
    ]


def _others(block: Block, fit: Callable[[Block], _Fit]) -> Iterator[_Fit]:
    for variant in block.variants:
        if variant != block.variant:
            known = type(block)(variant).values
            try:
                yield fit(
                    type(block)(variant, **{name: value for name, value in block.values.items() if name in known})
                )
            except GraphSurgeryError:
                continue


def _template(block: Block, arrays: Mapping[str, Array], feature: FeatureMap) -> list[object]:
    """What a block emits, in a form that is equal for equal templates whatever their tensors are called."""
    t = Template(feature, opset=_OPSET, weights=arrays)
    output = block.emit(t, block.choose(t, block.lowerings(t.feature, _OPSET)))
    return list(_anonymous(t.export(output, ir_version=_IR_VERSION)))


def _anonymous(subgraph: Subgraph) -> Iterator[object]:
    values = {tensor.name: _payload(tensor) for tensor in subgraph.initializers}
    numbers: dict[str, int] = {}
    for node in subgraph.nodes:
        names = [*node.input, *node.output]
        new = [values.get(name) for name in names if name not in numbers]
        yield node.op_type, [a.SerializeToString() for a in node.attribute], new
        yield [numbers.setdefault(name, len(numbers)) for name in names]


def _payload(tensor: Any) -> bytes:
    unnamed = type(tensor)()
    unnamed.CopyFrom(tensor)
    unnamed.name = ""
    payload: bytes = unnamed.SerializeToString()
    return payload
