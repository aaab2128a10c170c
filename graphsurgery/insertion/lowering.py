"""A planned block as nodes, constants and a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import NamedTuple

import numpy as np

from ..blocks.block import Array, Block
from ..errors import BlockError
from ..feature_map import FeatureMap
from ..modelfile.model import ModelFile
from ..modelfile.record import Insertion, RecordedPair, RecordedSite
from ..request import Shapes
from ..template import weight_folding
from ..template.around import Around
from ..template.names import UniqueNames
from ..template.subgraph import Subgraph
from ..template.template import Template
from . import qdq
from .plan import PlannedInsertion


class LoweredBlock(NamedTuple):
    """A block as it is written, with what stands around it."""

    subgraph: Subgraph
    lowering: str
    feature: FeatureMap
    """the site as the block was computed for it"""
    weights: Mapping[str, Array]
    constants: tuple[str, str] | None
    """scale and zero point of a QuantizeLinear and DequantizeLinear that are to come after it"""


def lower(
    planned: PlannedInsertion, id: str, scope: str, source: str, model: ModelFile, names: UniqueNames, edition: int
) -> LoweredBlock:
    """Lower the block of an insertion, named by its id and scope, for the tensor ``source`` of a model.

    Raises BlockError and WeightsError.
    """
    request, site = planned.request, planned.site
    weights = planned.weights(request.seed, id)
    template = Template(
        site.feature,
        opset=model.opset,
        scope=scope,
        weight_scope=id,
        target=request.target,
        precision=request.precision,
        weights=weights,
        x=source,
        names=names,
        edition=edition,
    )
    lowering = _lowering(planned.block, template, request.lowering)
    output = planned.block.emit(template, lowering)
    output = Around.of(request.gate, weights).emit(template, output)
    constants = qdq.constants(template, planned.pair) if planned.pair else None
    subgraph = template.export(output, ir_version=int(model.structure.ir_version))
    return LoweredBlock(subgraph, lowering, template.feature, weights, constants)


def name_output(subgraph: Subgraph, name: str) -> None:
    """Rename the output of a subgraph."""
    for node in subgraph.nodes:
        for i, output in enumerate(node.output):
            if output == subgraph.output:
                node.output[i] = name
    subgraph.output = name


def record_of(
    planned: PlannedInsertion,
    id: str,
    block: LoweredBlock,
    *,
    reads: str,
    declares: str | None,
    original: str,
    shapes: Shapes,
    pair: RecordedPair | None = None,
) -> Insertion:
    """The record of a block that reads the tensor ``reads``, and declares the shape of ``declares``."""
    request, site, subgraph = planned.request, planned.site, block.subgraph
    place = {each.name: getattr(site, each.name) for each in fields(RecordedSite)}
    return Insertion(
        id=id,
        module=planned.block.spelled,
        settings=planned.block.recorded_values(),
        gate=request.gate,
        init=planned.init,
        target=request.target,
        precision=request.precision,
        lowering=block.lowering,
        site=RecordedSite(**place | {"tensor": reads}),
        output_tensor=subgraph.output,
        nodes=tuple(node.name for node in subgraph.nodes),
        initializers=tuple(tensor.name for tensor in subgraph.initializers),
        value_info=(declares,) if declares and site.function is None else (),
        parameters=sum(int(np.size(values)) for values in block.weights.values()),
        stored={
            key: subgraph.stored.get(key) or weight_folding.keep(np.asarray(values))
            for key, values in block.weights.items()
        },
        original=original,
        qdq=pair,
        function=site.function,
        shapes=dict(shapes),
        edition=subgraph.edition,
    )


def _lowering(block: Block, t: Template, wanted: str | None) -> str:
    known = block.lowerings(t.feature, t.opset)
    if wanted is None:
        return block.choose(t, known)
    if wanted not in known:
        sentence = f"{block.spelled} has no lowering {wanted!r} at {t.feature.label}; it has {', '.join(known)}"
        raise BlockError(sentence, option="lowering", candidates=known)
    return wanted
