"""What every model has to be before its graph is looked at: of versions that exist, with names that are text."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import onnx

from ..errors import ModelError
from ..messages import as_text
from . import limits
from .operators import STANDARD
from .subgraphs import subgraphs


class AnyGraph(NamedTuple):
    """A graph of a model, with the version of the standard operator set in it."""

    content: onnx.GraphProto | onnx.FunctionProto
    opset: int | None


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


def graphs(model: onnx.ModelProto) -> list[AnyGraph]:
    """Every graph of a model: the main graph, the functions, and the subgraphs of nodes."""
    opset = standard_opset(model)
    found = [AnyGraph(model.graph, opset)]
    found += (AnyGraph(each, standard_opset(each) or opset) for each in model.functions)
    for graph in found:  # which grows
        found += (AnyGraph(inner, graph.opset) for node in graph.content.node for inner in subgraphs(node))
    return found


def check_names(graphs: Iterable[AnyGraph], name: str) -> None:
    """ModelError for a name in the graphs of the model ``name`` that is not UTF-8 text."""
    for graph, _ in graphs:
        names = _names(graph)
        if set(map(type, names)) - {str}:
            found = next(each for each in names if not isinstance(each, str))  # protobuf hands it over as bytes
            raise ModelError(f"{name} has the name {found!r} in it, which is not UTF-8 text")


def check_nodes(graphs: Iterable[AnyGraph], name: str) -> None:
    """ModelError for a node of a standard operator with fewer inputs or outputs than ONNX says that it has."""
    for graph, opset in graphs:
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


def _names(graph: onnx.GraphProto | onnx.FunctionProto) -> list[object]:
    """The names in a graph, those in its subgraphs left out."""
    names: list[object]
    if isinstance(graph, onnx.GraphProto):
        names = [value.name for values in (graph.input, graph.output) for value in values]
        names += [tensor.name for tensor in graph.initializer]
    else:
        names = [graph.domain, graph.name, graph.overload, *graph.input, *graph.output, *graph.attribute]
    for node in graph.node:
        names += (node.name, node.op_type, node.domain, node.overload)
        names += node.input[:]  # a slice is a list at once: the container itself gives one after the other
        names += node.output[:]
    return names
