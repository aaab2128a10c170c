"""Local functions: a model with its calls written out, where they can be and are not too many."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import inliner

from ..errors import ModelError
from ..modelfile import limits
from ..modelfile.operators import STANDARD
from ..modelfile.subgraphs import subgraphs

_Key = tuple[str, str, str]


def written_out(model: onnx.ModelProto, name: str, most: int = limits.WRITTEN_OUT_NODES) -> onnx.ModelProto:
    """The model without local functions: every call replaced by the nodes of its function.

    ModelError where a function calls itself, lacks something, or where there would be more than ``most`` nodes.
    """
    if not model.functions:
        return model
    check(model, name, most)
    try:
        return inliner.inline_local_functions(model)
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
        self._functions = {_key(each.domain, each.name, each.overload): each for each in model.functions}
        self._known: dict[_Key, tuple[int, int]] = {}
        self._open: list[_Key] = []

    def of(self, nodes: Iterable[onnx.NodeProto]) -> tuple[int, int]:
        """(nodes, bytes) of some nodes, those of their subgraphs and of the functions that they call included."""
        count = size = 0
        for node in nodes:
            key = _key(node.domain, node.op_type, node.overload)
            parts = [self._of_call(key)] if key in self._functions else [(1, node.ByteSize())]
            parts += [self.of(graph.node) for graph in subgraphs(node)]
            count += sum(part[0] for part in parts)
            size += sum(part[1] for part in parts)
        return count, size

    def _of_call(self, key: _Key) -> tuple[int, int]:
        if key in self._open:
            raise ModelError(f"{self._name} is no valid model: its function {key[1]} calls itself")
        if len(self._open) >= limits.CALL_DEPTH:
            raise ModelError(f"functions of {self._name} call each other more than {limits.CALL_DEPTH} deep")
        if key not in self._known:
            self._open.append(key)
            self._known[key] = self.of(self._functions[key].node)
            self._open.pop()
        return self._known[key]


def _key(domain: str, name: str, overload: str) -> _Key:
    return "" if domain in STANDARD else domain, name, overload
