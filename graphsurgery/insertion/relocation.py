"""Where the constants of a block are now: optimisers let blocks share equal ones, and records name lost ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from ..blocks.block import Block
from ..graph.index import GraphIndex
from ..graph.quantisation import QUANTISE
from ..modelfile.record import Insertion
from ..template.around import Around
from ..template.subgraph import Subgraph
from ..template.template import Template


def relocated(index: GraphIndex, insertion: Insertion, make_block: Callable[[], Block]) -> Insertion:
    """The record with its constants by their present names; as it is where all are in place, or cannot be told.

    Which constant a node reads in which place is known from lowering the block once more.
    """
    if all(name in index.initializers for name in insertion.initializers):
        return insertion
    pair = insertion.qdq
    own = set(pair.nodes) if pair else set[str]()
    nodes = [_node(index, name) for name in insertion.nodes if name not in own]
    recorded = [name for name in insertion.initializers if pair is None or name not in (pair.scale, pair.zero_point)]
    again = _lowered(index, insertion, make_block())
    found: dict[str, str] = {}
    names = dict(zip((tensor.name for tensor in again.initializers), recorded, strict=False))
    if len(again.nodes) != len(nodes) or len(names) != len(again.initializers):
        return insertion
    for node, here in zip(again.nodes, nodes, strict=True):
        if here is None or (node.op_type, len(node.input)) != (here.op_type, len(here.input)):
            return insertion
        for name, present in zip(node.input, here.input, strict=True):
            if name in names and found.setdefault(names[name], present) != present:
                return insertion
    for node in filter(None, (_node(index, name) for name in (pair.nodes if pair else ()))):
        if pair and node.op_type == QUANTISE:
            found |= dict(zip((pair.scale, pair.zero_point), node.input[1:], strict=False))
    in_place = all(found[name] == name for name in found if name in index.initializers)
    return insertion.with_constants(found) if in_place else insertion


def _node(index: GraphIndex, name: str) -> onnx.NodeProto | None:
    found = index.node_names.get(name, [])
    return index.nodes[found[0]] if len(found) == 1 else None


def _lowered(index: GraphIndex, insertion: Insertion, block: Block) -> Subgraph:
    """The block once more, with weights that do not matter, without the pair after it."""
    feature = insertion.feature
    around = Around.of(insertion.gate, insertion.stored)
    weights = {**block.initial(feature, np.random.default_rng(0)), **around.initial(feature.channels)}
    template = Template(
        feature,
        opset=index.model.opset,
        target=insertion.target,
        precision=insertion.precision,
        weights=weights,
        edition=insertion.edition,
    )
    output = around.emit(template, block.emit(template, insertion.lowering))
    return template.export(output, ir_version=int(index.model.structure.ir_version))
