"""A recorded block lowered once more by its template: with other weights, or for a map of another size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import onnx

from ..blocks.block import Array, Block
from ..feature_map import Dimension
from ..template.around import Around
from ..template.template import Template
from .cutout import Cutout

if TYPE_CHECKING:
    from ..modelfile.record import Insertion
    from ..template.subgraph import Subgraph


def lowered(block: Block, insertion: Insertion, cutout: Cutout, opset: int, weights: Mapping[str, Array]) -> Subgraph:
    """What the template of the block writes today, as recorded, with what stands around it. ``weights``: by official
    key.
    """
    template = Template(
        insertion.feature,
        opset=opset,
        weight_scope=insertion.id,
        target=insertion.target,
        precision=insertion.precision,
        weights=weights,
        x=cutout.input,
        edition=insertion.edition,
    )
    output = Around.of(insertion.gate, insertion.stored).emit(template, block.emit(template, insertion.lowering))
    return template.export(output, ir_version=cutout.model.ir_version)


def as_model(subgraph: Subgraph, cutout: Cutout, shape: Sequence[Dimension] | None = None) -> onnx.ModelProto:
    """What a template wrote, as a model that reads what the cut-out block reads. ``shape``: of another map than its."""
    alone = cutout.model
    kind = alone.graph.input[0].type.tensor_type.elem_type
    given = alone.graph.input if shape is None else [onnx.helper.make_tensor_value_info(cutout.input, kind, shape)]
    output = onnx.helper.make_tensor_value_info(subgraph.output, kind, shape)
    graph = onnx.helper.make_graph(subgraph.nodes, alone.graph.name, given, [output], subgraph.initializers)
    return onnx.helper.make_model(graph, opset_imports=list(alone.opset_import), ir_version=alone.ir_version)
