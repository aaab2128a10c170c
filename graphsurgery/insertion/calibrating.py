"""The calibrated start in a file: each channel behind a block gets the mean and deviation that it has without it.

One pass over the images for the model as it was given, and one for each place, in the order of the model: what arrives
at a place depends on the blocks before it. A live model is measured in the same way (torch/calibration.py), so that a
recipe arrives at the same scale and shift in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..blocks.block import Array
from ..blocks.calibration import Moments, lost, scale_and_shift
from ..errors import CannotRun
from ..graph.written_out import as_run, without_calls
from ..messages import tracked
from ..modelfile.model import ModelFile
from ..request import Shapes
from ..runtime.sample_inputs import image_paths
from ..selection.sites import SiteFinder
from ..template.calibration import SCALE_KEY, SHIFT_KEY
from .activations import run_on
from .plan import PlannedInsertion, ordered
from .splice import insert

_Tensor = tuple[str, int]
"""name and element type"""


def calibrate(finder: SiteFinder, insertions: Iterable[PlannedInsertion]) -> list[PlannedInsertion]:
    """The insertions in order, with the scale and shift that fit their images where that is asked for.

    The model runs on onnxruntime's CPU provider. MissingDependency, RequestError (bad images, or values on them that
    are not finite) and CannotRun.
    """
    result = ordered(insertions)
    places = [place for place, planned in enumerate(result) if planned.request.init == "calibrated"]
    places.sort(key=lambda place: (finder.index.producer.get(result[place].site.tensor, -1), place))
    model = finder.model
    if any(result[place].site.function for place in places):
        model = without_calls(model, always=True)
    before = _without_blocks(model, [result[place] for place in places], finder.shapes.given)
    for place, expected in tracked(list(zip(places, before, strict=True)), "places"):
        planned = result[place]
        with planned.request.concerned():
            measured = [_measured(each, itself=i == place) for i, each in enumerate(result)]
            model, applied = insert(finder, measured)
            model, given = as_run(model, applied[place].insertion)
            tensor = given.output_tensor, given.feature.onnx_type
            after = _moments(model, [tensor], planned.request.images, finder.shapes.given)[tensor]
            scale, shift = scale_and_shift(expected, after, given.id)
        weights = _with(planned.weights, {SCALE_KEY: scale, SHIFT_KEY: shift})
        result[place] = replace(planned, weights=weights, warnings=(*planned.warnings, *lost(expected, after)))
    return result


def _without_blocks(model: ModelFile, insertions: Sequence[PlannedInsertion], shapes: Shapes) -> list[Moments]:
    """What arrives at the site of each when the model is as it was given; all that share a folder in one run."""
    found: dict[tuple[str | None, _Tensor], Moments] = {}
    for folder in dict.fromkeys(planned.request.images for planned in insertions):
        own = [planned for planned in insertions if planned.request.images == folder]
        with own[0].request.concerned():
            tensors = list(dict.fromkeys(map(_arriving, own)))
            moments = _moments(model, tensors, folder, shapes)
        found |= {(folder, tensor): each for tensor, each in moments.items()}
    return [found[planned.request.images, _arriving(planned)] for planned in insertions]


def _arriving(planned: PlannedInsertion) -> _Tensor:
    return planned.site.running, planned.site.feature.onnx_type


def _measured(planned: PlannedInsertion, *, itself: bool) -> PlannedInsertion:
    """An insertion while one is measured: that one is the block alone. A pair whose scale is found on images has none
    yet, see qdq_planning.py.
    """
    if itself:
        alone = replace(planned.request, gate="none").labelled(planned.request.label)
        return replace(planned, request=alone, pair=None)
    return replace(planned, pair=None) if planned.request.qdq_scale == "images" else planned


def _moments(
    model: ModelFile, tensors: Sequence[_Tensor], folder: str | None, shapes: Shapes
) -> dict[_Tensor, Moments]:
    """Of tensors [N, C, H, W] over all images of a folder."""
    images = Path(folder or "")
    image_paths(images)  # a bad folder is an error even if the model turns out not to run
    each_image, failure = run_on(model, tensors, images, _of_all, shapes)
    if failure:
        raise CannotRun(f"the model does not run here, so that there is nothing to calibrate on: {failure}")
    found = {tensor: Moments() for tensor in tensors}
    for _, moments in each_image:
        for tensor in tensors:
            found[tensor].add(moments[tensor[0]])
    return found


def _of_all(values: Mapping[str, Array]) -> dict[str, Moments]:
    return {name: Moments.of(value) for name, value in values.items()}


def _with(
    weights: Callable[[int, str], Mapping[str, Array]], more: Mapping[str, Array]
) -> Callable[[int, str], Mapping[str, Array]]:
    return lambda seed, id: {**weights(seed, id), **more}
