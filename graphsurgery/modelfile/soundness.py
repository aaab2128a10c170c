"""What every model has to be before its graph is looked at: of versions that exist, with names that are text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import onnx

from ..errors import ModelError
from ..messages import as_text
from . import limits
from .operators import STANDARD
from .subgraphs import subgraphs


def standard_opset(model: onnx.ModelProto | onnx.FunctionProto) -> int | None:
    """Version of the standard operator set; None if it is not imported. Imported twice, the last counts, as it does
    for ONNX and onnxruntime.
    """
    found = [int(entry.version) for entry in model.opset_import if entry.domain in STANDARD]
    return found[-1] if found else None


def check_versions(model: onnx.ModelProto, name: str) -> None:
    """ModelError for a version of the IR or of the standard operator set that cannot be one."""
    said = [("IR version", int(model.ir_version)), ("version of the standard operator set", standard_opset(model))]
    said += (("version of a function's operator set", standard_opset(each)) for each in model.functions)
    for what, version in said:
        if version is not None and not 0 < version <= limits.VERSION:
            raise ModelError(f"{name} says that its {what} is {version}, which ONNX does not have")


def check_names(model: onnx.ModelProto, name: str) -> None:
    """ModelError for a name in the graph, a subgraph or a function that is not UTF-8 text."""
    for found in _names(model):
        if not isinstance(found, str):  # protobuf hands it over as bytes
            raise ModelError(f"{name} has the name {found!r} in it, which is not UTF-8 text")


def check_nodes(model: onnx.ModelProto, name: str) -> None:
    """ModelError for a node of a standard operator with fewer inputs or outputs than ONNX says that it has."""
    for graph, opset in _graphs(model):
        for node in graph.node:
            if node.domain not in STANDARD:
                continue
            inputs, outputs = _least(node.op_type, opset)
            if len(node.input) < inputs or len(node.output) < outputs:
                has, lacks = ("input", inputs) if len(node.input) < inputs else ("output", outputs)
                of = f"the node {as_text(node.name)!r}" if node.name else "a node"
                count = len(node.input) if has == "input" else len(node.output)
                raise ModelError(
                    f"{name} is not a valid model: {of}, a {as_text(node.op_type)}, has {count or 'no'} {has}"
                    f"{'s' * (count > 1)} and needs {lacks}"
                )


@cache
def _least(operator: str, opset: int | None) -> tuple[int, int]:
    """How many inputs and outputs an operator has at least; 0 where ONNX does not know it."""
    try:
        schema = onnx.defs.get_schema(operator, opset or 1, "")
    except onnx.defs.SchemaError:
        return 0, 0
    return schema.min_input, schema.min_output


def _graphs(model: onnx.ModelProto) -> Iterator[tuple[onnx.GraphProto | onnx.FunctionProto, int | None]]:
    """Every graph of a model, with the version of the standard operator set in it."""
    opset = standard_opset(model)
    pending: list[tuple[onnx.GraphProto | onnx.FunctionProto, int | None]] = [(model.graph, opset)]
    pending += [(each, standard_opset(each) or opset) for each in model.functions]
    while pending:
        graph, opset = pending.pop()
        yield graph, opset
        pending += [(inner, opset) for node in graph.node for inner in subgraphs(node)]


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
