"""What every model has to be before its graph is looked at: of versions that exist, with names that are text."""

from __future__ import annotations

from collections.abc import Iterator

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


def check_names(model: onnx.ModelProto, name: str) -> None:
    """ModelError for a name in the graph, a subgraph or a function that is not UTF-8 text."""
    for found in _names(model):
        if text(found) is None:
            raise ModelError(f"{name} has the name {found!r} in it, which is not UTF-8 text")


def _names(model: onnx.ModelProto) -> Iterator[str]:
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        if isinstance(graph, onnx.GraphProto):
            yield from (value.name for values in (graph.input, graph.output) for value in values)
            yield from (tensor.name for tensor in graph.initializer)
        else:
            yield from (graph.domain, graph.name, graph.overload, *graph.input, *graph.output, *graph.attribute)
        for node in graph.node:
            yield from (node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
            pending += subgraphs(node)
