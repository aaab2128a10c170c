"""What every model has to be before its graph is looked at: versions that exist, names that are text, nodes with what
their operators need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from ..errors import ModelError
from . import limits
from .subgraphs import subgraphs
from .wire import text

_STANDARD = ("", "ai.onnx")


def standard_opset(model: onnx.ModelProto | onnx.FunctionProto) -> int | None:
    """Version of the standard operator set; None if it is not imported. Imported twice, the last counts, as it does
    for ONNX and onnxruntime.
    """
    found = [int(entry.version) for entry in model.opset_import if entry.domain in _STANDARD]
    return found[-1] if found else None


def check_versions(model: onnx.ModelProto, name: str) -> None:
    """ModelError for a version of the IR or of the standard operator set that cannot be one."""
    said = {"IR version": int(model.ir_version), "version of the standard operator set": standard_opset(model)}
    said |= {"version of a function's operator set": max(_of_functions(model), default=None)}
    for what, version in said.items():
        if version is not None and not 0 < version <= limits.VERSION:
            raise ModelError(f"{name} says that its {what} is {version}, which ONNX does not have")


def _of_functions(model: onnx.ModelProto) -> Iterator[int]:
    return (version for each in model.functions if (version := standard_opset(each)) is not None)


def check_graph(model: onnx.ModelProto, name: str) -> None:
    """ModelError for a name in the graph, a subgraph or a function that is not UTF-8 text, and for a node of a standard
    operator that lacks an input or an output which it must have.
    """
    _Check(name, standard_opset(model)).graph(model.graph)
    for function in model.functions:
        check = _Check(name, standard_opset(function))
        check.names((function.domain, function.name, *function.input, *function.output, *function.attribute))
        check.nodes(function.node)


class _Check:
    """The check of the graphs of one operator set."""

    def __init__(self, model: str, opset: int | None) -> None:
        self._model = model
        self._opset = opset
        self._least: dict[str, tuple[int, int]] = {}

    def graph(self, graph: onnx.GraphProto) -> None:
        self.names(value.name for values in (graph.input, graph.output) for value in values)
        self.names(tensor.name for tensor in graph.initializer)
        self.nodes(graph.node)

    def nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            inputs, outputs = node.input, node.output
            self.names((node.name, node.op_type, node.domain, *inputs, *outputs))
            if node.domain in _STANDARD:
                takes, gives = self._arity(node.op_type)
                if len(inputs) < takes or len(outputs) < gives:
                    raise self._lacking(node, takes, gives)
            for graph in subgraphs(node):
                self.graph(graph)

    def names(self, names: Iterable[str]) -> None:
        for name in names:
            if text(name) is None:
                raise ModelError(f"{self._model} has the name {name!r} in it, which is not UTF-8 text")

    def _arity(self, op_type: str) -> tuple[int, int]:
        """The least numbers of inputs and outputs of a standard operator; (0, 0) for one that is not known."""
        if op_type not in self._least:
            known = self._opset is not None and onnx.defs.has(op_type, self._opset, "")
            schema = onnx.defs.get_schema(op_type, self._opset, "") if known else None
            self._least[op_type] = (schema.min_input, schema.min_output) if schema else (0, 0)
        return self._least[op_type]

    def _lacking(self, node: onnx.NodeProto, takes: int, gives: int) -> ModelError:
        count, least, what = len(node.input), takes, "input"
        if count >= takes:
            count, least, what = len(node.output), gives, "output"
        called = f"the node {node.name!r} ({node.op_type})" if node.name else f"a node ({node.op_type})"
        plural = "" if least == 1 else "s"
        return ModelError(
            f"{self._model} is no valid model, and no runtime can run it: {called} has {count or 'no'} "
            f"{what}{plural}, and needs {least}"
        )
