"""Which planned insertions get a pair of QuantizeLinear and DequantizeLinear after the block, and with which scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CannotRun, SiteError, option
from ..graph.index import GraphIndex
from ..graph.written_out import as_run, without_calls
from ..modelfile.function_body import graph_of
from . import qdq
from .plan import PlannedInsertion, ordered
from .splice import insert

if TYPE_CHECKING:
    from ..selection.sites import SiteFinder

_NOTHING_TO_ADD = (
    f"{option('qdq')} adds nothing here: the block stands in front of the QuantizeLinear that its readers have already"
)


def with_pair(planned: PlannedInsertion, finder: SiteFinder) -> PlannedInsertion:
    """The insertion with the pair that its request asks for. SiteError where nothing is quantised."""
    if planned.request.qdq == "none":
        return planned
    tensor, label = planned.site.tensor, planned.site.label
    function = planned.site.function
    index = finder.index if function is None else GraphIndex(graph_of(finder.model, function))
    if not qdq.needed(index, tensor, label):
        return replace(planned, warnings=(*planned.warnings, _NOTHING_TO_ADD))
    pair = qdq.pair_at(index, tensor, label)
    if planned.request.qdq_scale == "images" and pair.scale.size > 1:
        raise SiteError(
            f"{label} has a scale for each channel; {option('qdq_scale', 'images')} finds one for a whole tensor"
        )
    return replace(planned, pair=pair)


def fit_scales(finder: SiteFinder, insertions: Sequence[PlannedInsertion]) -> list[PlannedInsertion]:
    """The insertions in order, with scales that fit what the blocks give on images where that is asked for.

    For that the blocks are inserted without these pairs, and the model runs on onnxruntime's CPU provider.
    MissingDependency, RequestError (bad images) and CannotRun.
    """
    result = ordered(insertions)
    folders = {
        place: planned.request.images
        for place, planned in enumerate(result)
        if planned.pair and planned.request.qdq_scale == "images"
    }
    if not folders:
        return result
    from .activations import activations

    bare = [replace(planned, pair=None) if place in folders else planned for place, planned in enumerate(result)]
    model, applied = insert(finder, bare)
    for folder in dict.fromkeys(folders.values()):
        chosen = {place: as_run(model, applied[place].insertion)[1] for place in folders if folders[place] == folder}
        tensors = [(each.output_tensor, each.feature.onnx_type) for each in chosen.values()]
        found = activations(without_calls(model), tensors, Path(folder or ""), finder.shapes.given)
        if found.failure:
            raise CannotRun(f"the model does not run here, so that there is no scale from images: {found.failure}")
        for place, insertion in chosen.items():
            values = [given[insertion.output_tensor].astype(np.float64) for _, given in found.images]
            pair = result[place].pair
            assert pair is not None
            low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
            result[place] = replace(result[place], pair=pair.fitted(low, high))
    return result
