"""Reading: what the outputs of a detector are, told by their shapes and values where these leave one answer only.

One output alone may hold everything, or boxes, scores and classes stand in outputs of their own (apart.py), or there
are maps at several strides (maps.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..feature_map import Array
from .apart import apart
from .detections import MOST, Detections, best_of, corners, from_list
from .maps import maps
from .outputs import Output, Picture, Reader, are_corners, is_share, is_whole


def reader(
    images: Sequence[Sequence[Array]], height: int, width: int, joined: Sequence[Sequence[int]] = ()
) -> Reader | str:
    """How a model's outputs are read; or why they are not, in a sentence.

    Parameters
    ----------
    images:
        Of each image what the model gives, one array for each output.
    height, width:
        Of the model's input, in pixels.
    joined:
        Of each output, the channels of the tensors that it is joined from, where it is.
    """
    outputs = [Output(number, arrays) for number, arrays in enumerate(zip(*images, strict=True))]
    if not all(np.isfinite(each.part(...)).all() for each in outputs if each.is_float):
        return "the outputs hold values that are infinite or not a number"
    picture = Picture(height, width)
    if (found := apart(outputs, picture)) is not None:
        return found
    alone = [one for each in outputs if (one := _alone(each, picture)) is not None]
    if len(alone) == 1:
        return alone[0]
    shapes = ", ".join(each.words for each in outputs)
    if alone:
        return f"each of several outputs may be the detections: {shapes}"
    if (found := maps(outputs, picture, joined)) is not None:
        return found
    return f"what the model gives is not known to be detections: {shapes}"


def _alone(output: Output, picture: Picture) -> Reader | None:
    """An output that holds everything."""
    shape = output.shape
    if not output.is_float:
        return None
    if len(shape) == 2:
        return _list(output)
    if len(shape) == 3 and shape[2] == 6 and shape[1] <= MOST:
        return _lists(output) or _queries(output, picture)
    return _dense(output, picture) or _queries(output, picture) if len(shape) == 3 and -1 not in shape else None


def _list(output: Output) -> Reader | None:
    """What the model itself chose, of all pictures of a batch in one list."""
    number, columns = output.number, output.shape[1]
    if columns == 7 and is_whole(output.part(..., [0, 5])) and is_share(output.part(..., 6)):

        def numbered(outputs: Sequence[Array]) -> Detections:
            rows = np.asarray(outputs[number], np.float64)
            rows = rows[rows[:, 0] == 0]
            return from_list(rows[:, 1:5], rows[:, 6], rows[:, 5])

        return Reader("number in the batch, corners, class and score [detections, 7]", numbered)
    if columns != 6:
        return None
    first = is_whole(output.part(..., 0)) and is_share(output.part(..., 1)) and _in_order(output, 2)
    last = is_share(output.part(..., 4)) and is_whole(output.part(..., 5)) and _in_order(output, 0)
    if first == last:
        return None
    score, kind, box = (1, 0, slice(2, 6)) if first else (4, 5, slice(0, 4))

    def plain(outputs: Sequence[Array]) -> Detections:
        rows = np.asarray(outputs[number], np.float64)
        return from_list(rows[:, box], rows[:, score], rows[:, kind])

    return Reader(f"{'class, score and corners' if first else 'corners, score and class'} [detections, 6]", plain)


def _lists(output: Output) -> Reader | None:
    """What the model itself chose, for each picture of a batch."""
    if not (is_share(output.part(..., 4)) and is_whole(output.part(..., 5)) and _in_order(output, 0)):
        return None

    def read(outputs: Sequence[Array]) -> Detections:
        rows = output.of(outputs)
        return from_list(rows[:, :4], rows[:, 4], rows[:, 5])

    return Reader("corners, score and class [N, detections, 6]", read)


def _in_order(output: Output, start: int) -> bool:
    return are_corners([np.asarray(each, np.float64)[..., start : start + 4] for each in output.arrays])


def _dense(output: Output, picture: Picture) -> Reader | None:
    """A box for each place of the maps, of which the best are to be chosen."""
    _, rows, columns = output.shape
    if columns in picture.places and rows > 4 and is_share(output.part(slice(None), slice(4, None))):

        def of_places(outputs: Sequence[Array]) -> Detections:
            values = output.of(outputs).T
            return best_of(corners(values), values[:, 4:], suppress=True)

        return Reader("centres, sizes and scores [N, 4 + classes, places]", of_places)
    anchors = {3 * count for count in picture.places}
    if rows in anchors and columns > 5 and is_share(output.part(..., slice(4, None))):

        def of_anchors(outputs: Sequence[Array]) -> Detections:
            values = output.of(outputs)
            return best_of(corners(values), values[:, 5:] * values[:, 4:5], suppress=True)

        return Reader("centres, sizes, objectness and scores [N, places, 5 + classes]", of_anchors)
    return None


def _queries(output: Output, picture: Picture) -> Reader | None:
    """A box for each query, each another object."""
    _, rows, columns = output.shape
    if columns <= 4 or not 0 < rows <= MOST or not is_share(output.part(...)):
        return None

    def read(outputs: Sequence[Array]) -> Detections:
        values = output.of(outputs)
        return best_of(corners(values) * picture.edges, values[:, 4:], suppress=False)

    return Reader("centres, sizes (as shares of the image) and scores [N, queries, 4 + classes]", read)
