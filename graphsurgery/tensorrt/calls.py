"""Calls of local functions: the attributes that each is called with, put in the place of references to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import onnx

from ..messages import as_text
from ..modelfile import limits
from ..modelfile.payload import attribute_value
from ..modelfile.subgraphs import nested

Key = tuple[str, str, str]
"""domain, name and overload of a function"""
Given = dict[str, onnx.AttributeProto]
"""the attributes of a function by name, as one call gives them"""


def key_of(node: onnx.NodeProto) -> Key:
    """The function that a node calls, if the model has it."""
    return node.domain, node.op_type, node.overload


def calls(graph: onnx.GraphProto, functions: Mapping[Key, onnx.FunctionProto]) -> dict[Key, list[Given]]:
    """The different attributes that each function is called with: none of them where nothing calls it."""
    found: dict[Key, dict[tuple[bytes, ...], Given]] = {key: {} for key in functions}
    pending: deque[tuple[onnx.NodeProto, Given]] = deque((node, {}) for node in _all(graph.node))
    while pending:
        node, outer = pending.popleft()
        key = key_of(node)
        if key not in functions:
            continue
        given = _given(functions[key], bound(node, outer))
        values = tuple(each.SerializeToString(deterministic=True) for each in given.values())
        if values not in found[key] and len(found[key]) < limits.FUNCTION_BINDINGS:
            found[key][values] = given
            pending += [(inner, given) for inner in _all(functions[key].node)]
    return {key: list(different.values()) for key, different in found.items()}


def bound(node: onnx.NodeProto, given: Given) -> onnx.NodeProto:
    """A node of a function as one call of it means it: references to attributes replaced, or left out where the call
    does not give them.
    """
    if not any(attribute.ref_attr_name for each in _all([node]) for attribute in each.attribute):
        return node
    result = onnx.NodeProto()
    result.CopyFrom(node)
    for each in _all([result]):
        attributes = [_resolved(attribute, given) for attribute in each.attribute]
        del each.attribute[:]
        each.attribute.extend(attribute for attribute in attributes if attribute is not None)
    return result


def in_words(given: Given) -> str:
    """``called with kernel_size = [2, 2]``."""
    parts = [f"{as_text(name)} = {as_text(attribute_value(attribute))}" for name, attribute in given.items()]
    return f"called with {', '.join(parts)}" if parts else "called without attributes"


def _resolved(attribute: onnx.AttributeProto, given: Given) -> onnx.AttributeProto | None:
    if not attribute.ref_attr_name:
        return attribute
    if attribute.ref_attr_name not in given:
        return None
    result = onnx.AttributeProto()
    result.CopyFrom(given[attribute.ref_attr_name])
    result.name = attribute.name
    return result


def _given(function: onnx.FunctionProto, call: onnx.NodeProto) -> Given:
    given = {attribute.name: attribute for attribute in function.attribute_proto}
    names = {*function.attribute, *given}
    return given | {attribute.name: attribute for attribute in call.attribute if attribute.name in names}


def _all(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, each followed by those of its subgraphs, however deep."""
    for node in nodes:
        yield node
        for graph in nested(node):
            yield from graph.node
