"""A recorded block lowered once more by its template: with other weights, or for a map of another size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..blocks.block import Array, Block
from ..template import residual_gate
from ..template.template import Template
from .cutout import Cutout

if TYPE_CHECKING:
    from ..modelfile.record import Insertion
    from ..template.subgraph import Subgraph


def lowered(block: Block, insertion: Insertion, cutout: Cutout, opset: int, weights: Mapping[str, Array]) -> Subgraph:
    """What the template of the block writes today, as recorded; gate included. ``weights``: by official key."""
    template = Template(
        insertion.feature,
        opset=opset,
        weight_scope=insertion.id,
        target=insertion.target,
        precision=insertion.precision,
        weights=weights,
        x=cutout.input,
    )
    output = block.emit(template, insertion.lowering)
    if insertion.gate == "residual":
        output = residual_gate.residual(template, output)
    return template.export(output, ir_version=cutout.model.ir_version)
