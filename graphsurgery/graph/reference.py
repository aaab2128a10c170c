"""One node, computed by ONNX's reference runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

from ..feature_map import Array
from .output_sizes import domain_of


def evaluate(
    node: onnx.NodeProto, inputs: Mapping[str, Array], opsets: Iterable[onnx.OperatorSetIdProto]
) -> dict[str, Array] | None:
    """The outputs of a node for the values of its inputs; None for what ONNX's reference cannot evaluate."""
    from onnx.reference import ReferenceEvaluator  # takes as long as a small edit, and few models need it

    graph = onnx.GraphProto(name="node", node=[node])
    graph.node[0].domain = domain_of(node)
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in inputs)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    try:
        versions = {domain_of(entry): entry.version for entry in opsets}
        found: list[Any] = ReferenceEvaluator(graph, opsets=versions).run(None, dict(inputs))  # type: ignore[assignment]
    except Exception:  # it raises whatever its operators raise
        return None
    return {value.name: np.asarray(array) for value, array in zip(graph.output, found, strict=True)}
