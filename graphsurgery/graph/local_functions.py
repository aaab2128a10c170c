"""Local functions: a model with its calls written out, where they can be and are not too many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx
from onnx import inliner

from ..errors import ModelError
from ..modelfile import limits
from ..modelfile.operators import STANDARD
from ..modelfile.soundness import standard_opset
from ..modelfile.subgraphs import subgraphs

Key = tuple[str, str, str]
"""domain, name and overload of a function"""


def written_out(model: onnx.ModelProto, name: str, most: int = limits.WRITTEN_OUT_NODES) -> onnx.ModelProto:
    """The model without local functions: every call replaced by the nodes of its function, in the order of these.

    A call of a function whose operators mean something else in the model's operator set stays a call. ModelError where
    a function calls itself, lacks something, or where there would be more than ``most`` nodes.
    """
    if not model.functions:
        return model
    check(model, name, most)
    try:
        return inliner.inline_local_functions(_prepared(model))
    except Exception as error:  # of ONNX's C++ side
        reason = str(error).splitlines()[0][:160]
        raise ModelError(f"the functions of {name} cannot be written out: {reason}") from None


def check(model: onnx.ModelProto, name: str, most: int = limits.WRITTEN_OUT_NODES) -> None:
    """ModelError where the functions of a model call themselves, or stand for more than ``most`` nodes: whatever
    follows the calls would not come to an end.
    """
    nodes, size = _Sizes(model, name).of(model.graph.node)
    if nodes > most or size > limits.WRITTEN_OUT_BYTES:
        raise ModelError(
            f"{name} has calls of functions that stand for {nodes:,} nodes ({size:,} bytes); "
            f"at most {most:,} ({limits.WRITTEN_OUT_BYTES:,} bytes) are written out"
        )


class _Sizes:
    """How many nodes, and bytes, the functions of a model stand for."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        self._name = name
        self._functions = by_key(model.functions)
        self._known: dict[Key, tuple[int, int]] = {}
        self._open: list[Key] = []

    def of(self, nodes: Iterable[onnx.NodeProto]) -> tuple[int, int]:
        """(nodes, bytes) of some nodes, those of their subgraphs and of the functions that they call included."""
        count = size = 0
        for node in nodes:
            key = key_of(node)
            parts = [self._of_call(key)] if key in self._functions else [(1, node.ByteSize())]
            parts += [self.of(graph.node) for graph in subgraphs(node)]
            count += sum(part[0] for part in parts)
            size += sum(part[1] for part in parts)
        return count, size

    def _of_call(self, key: Key) -> tuple[int, int]:
        if key in self._open:
            raise ModelError(f"{self._name} is no valid model: its function {key[1]} calls itself")
        if len(self._open) >= limits.CALL_DEPTH:
            raise ModelError(f"functions of {self._name} call each other more than {limits.CALL_DEPTH} deep")
        if key not in self._known:
            self._open.append(key)
            self._known[key] = self.of(self._functions[key].node)
            self._open.pop()
        return self._known[key]


def key_of(node: onnx.NodeProto) -> Key:
    """The key of the function that a node calls, if there is one."""
    return _plain(node.domain), node.op_type, node.overload


def key_in(function: tuple[str, ...]) -> Key:
    """The key of a function by its domain, name and overload."""
    domain, name, overload = function
    return _plain(domain), name, overload


def by_key(functions: Iterable[onnx.FunctionProto]) -> dict[Key, onnx.FunctionProto]:
    """Functions by what calls of them say."""
    return {key_in((each.domain, each.name, each.overload)): each for each in functions}


def _plain(domain: str) -> str:
    return "" if domain in STANDARD else domain


# ---------------------------------------------------------------------- what ONNX's inliner leaves out


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose calls state the defaults of attributes, which the inliner forgets, and whose functions import the
    model's version of the standard operators where these are the same in their own: the inliner looks at the number.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    functions = by_key(copy.functions)
    for nodes in (copy.graph.node, *(function.node for function in copy.functions)):
        for node in _with_nested(nodes):
            function = functions.get(key_of(node))
            if function is not None:
                stated = {attribute.name for attribute in node.attribute}
                node.attribute.extend(each for each in function.attribute_proto if each.name not in stated)
    version = standard_opset(copy)
    for function in copy.functions:
        own = standard_opset(function)
        if version and own and own != version and _mean_the_same(function.node, own, version):
            for entry in function.opset_import:
                if entry.domain in STANDARD:
                    entry.version = version
    return copy


def _with_nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _with_nested(graph.node)


def _mean_the_same(nodes: Sequence[onnx.NodeProto], first: int, second: int) -> bool:
    """Whether the standard operators among some nodes are the same in two versions of the operator set."""
    operators = {node.op_type for node in _with_nested(nodes) if node.domain in STANDARD}
    return all(_since(operator, first) == _since(operator, second) is not None for operator in operators)


def _since(operator: str, version: int) -> int | None:
    """The version of the operator set that an operator is of; None for one that it does not have."""
    try:
        return int(onnx.defs.get_schema(operator, version, "").since_version)
    except onnx.defs.SchemaError:
        return None
