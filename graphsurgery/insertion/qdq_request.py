"""Which of the planned insertions get a pair of QuantizeLinear and DequantizeLinear behind the block, and its scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SiteError, option
from . import qdq
from .splice import Planned, ordered, spliced

if TYPE_CHECKING:
    from ..request import Request
    from ..selection.sites import SiteFinder

_NOTHING_TO_ADD = (
    f"{option('qdq')} adds nothing here: the block stands in front of the QuantizeLinear that its readers have already"
)


def paired(planned: Planned, request: Request, finder: SiteFinder) -> tuple[Planned, str | None]:
    """The plan with the pair that was asked for, and the folder of images that its scale is to come from, if any.

    SiteError where nothing is quantised.
    """
    if request.qdq == "none":
        return planned, None
    tensor, label = planned.site.tensor, planned.site.label
    if not qdq.needed(finder.index, tensor, label):
        return replace(planned, warnings=(*planned.warnings, _NOTHING_TO_ADD)), None
    pair = qdq.pair_at(finder.index, tensor, label)
    if request.qdq_scale == "images" and pair.scale.size > 1:
        raise SiteError(
            f"{label} has a scale for each channel; {option('qdq_scale', 'images')} finds one for a whole tensor"
        )
    return replace(planned, pair=pair), request.images if request.qdq_scale == "images" else None


def measured(finder: SiteFinder, plans: Sequence[tuple[Planned, str | None]]) -> list[Planned]:
    """The plans with scales that fit what the blocks give on images, for those that are to have such.

    For that the blocks are inserted without these pairs, and the model is run.
    """
    result = [planned for planned, _ in plans]
    for folder in dict.fromkeys(folder for _, folder in plans if folder is not None):
        bare = [planned if images is None else replace(planned, pair=None) for planned, images in plans]
        model, done = spliced(finder, bare)
        place_of = {id(planned): place for place, planned in enumerate(bare)}
        made = {place_of[id(planned)]: each.insertion for planned, each in zip(ordered(bare), done, strict=True)}
        wanted = {place: made[place] for place, (_, images) in enumerate(plans) if images == folder}
        ranges = qdq.measured(model, list(wanted.values()), Path(folder))
        for place, insertion in wanted.items():
            pair = result[place].pair
            assert pair is not None
            result[place] = replace(result[place], pair=pair.fitted(*ranges[insertion.id]))
    return result
