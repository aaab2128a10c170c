"""Apart: detections whose boxes, scores and classes stand in outputs of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ..feature_map import Array
from .detections import MOST, Detections, Values, best_of, corners, from_list
from .outputs import Output, Picture, Reader, are_corners, is_share, is_whole, sigmoid

_ONE = 1e-3
"""how far from 1 the sum of probabilities may be"""


def apart(outputs: Sequence[Output], picture: Picture) -> Reader | str | None:
    """How they are read; a sentence where boxes and scores are there and leave open what they mean; None where they
    are not there.
    """
    for boxes in outputs:
        are_boxes = boxes.is_float and len(boxes.shape) in (2, 3) and boxes.shape[-1] == 4
        if are_boxes and (found := _chosen(boxes, outputs, picture)) is not None:
            return found
    return _of_all(outputs[0], outputs[1], picture) if len(outputs) == 2 else None


# ---------------------------------------------------------------------- what the model itself chose


def _chosen(boxes: Output, outputs: Sequence[Output], picture: Picture) -> Reader | str | None:
    """Corners [(N,) detections, 4], and scores and classes without the last axis."""
    lists = [each for each in outputs if each.shape == boxes.shape[:-1]]
    scores = [each for each in lists if each.is_float and is_share(each.part(...))]
    classes = [each for each in lists if each not in scores and (not each.is_float or is_whole(each.part(...)))]
    if len(lists) != 2 or len(scores) != 1 or len(classes) != 1:
        return None
    if not are_corners([np.asarray(each, np.float64) for each in boxes.arrays]):
        return f"the boxes {boxes.words} are no corners"
    shares, batched = is_share(boxes.part(...)), len(boxes.shape) == 3
    if shares and picture.height != picture.width:
        return f"the boxes {boxes.words} are shares of the image, and leave open which of them are those of its height"

    def read(found: Sequence[Array]) -> Detections:
        box, score, kind = (np.asarray(found[each.number], np.float64) for each in (boxes, scores[0], classes[0]))
        if batched:
            box, score, kind = box[0], score[0], kind[0]
        return from_list(box * picture.edges if shares else box, score, kind)

    size = "[N, detections, 4]" if batched else "[detections, 4]"
    return Reader(f"corners {'(as shares of the image) ' if shares else ''}{size}, scores and classes", read)


# ---------------------------------------------------------------------- boxes and scores of all queries or places


def _of_all(first: Output, second: Output, picture: Picture) -> Reader | str | None:
    """Boxes [N, count, 4] and scores [N, count, classes], each or both with the last two axes exchanged."""
    shapes = (first.shape, second.shape)
    if not (first.is_float and second.is_float) or any(len(shape) != 3 or -1 in shape for shape in shapes):
        return None
    fitting = []
    for boxes, scores in ((first, second), (second, first)):
        for turned in product((False, True), repeat=2):
            box, score = (_Upright(each, axes) for each, axes in zip((boxes, scores), turned, strict=True))
            if box.width == 4 and box.count == score.count > 4:
                fitting.append((box, score))
    if len(fitting) > 1:
        return f"either of the outputs {first.words} and {second.words} may be the boxes"
    return _pair(*fitting[0], picture) if fitting else None


@dataclass(frozen=True)
class _Upright:
    """An output [N, count, width], or one that is turned into that."""

    output: Output
    turned: bool

    @property
    def count(self) -> int:
        return self.output.shape[2 if self.turned else 1]

    @property
    def width(self) -> int:
        return self.output.shape[1 if self.turned else 2]

    @property
    def rows(self) -> list[Values]:
        """Of each image."""
        return [self._upright(np.asarray(each, np.float64)) for each in self.output.arrays]

    def of(self, outputs: Sequence[Array]) -> Values:
        """Of the first picture in a batch."""
        return self._upright(self.output.of(outputs))

    def _upright(self, values: Values) -> Values:
        return np.swapaxes(values, -1, -2) if self.turned else values


def _pair(boxes: _Upright, scores: _Upright, picture: Picture) -> Reader | str:
    meaning = _scores_of(scores)
    if isinstance(meaning, str):
        return meaning
    words, score = meaning
    shares, edged = is_share(boxes.output.part(...)), are_corners(boxes.rows)
    many = boxes.count in picture.places or boxes.count > MOST

    def read(outputs: Sequence[Array]) -> Detections:
        box = boxes.of(outputs) * picture.edges if shares else boxes.of(outputs)
        return best_of(box if edged else corners(box), score(scores.of(outputs)), suppress=many)

    kind = f"{'corners' if edged else 'centres and sizes'}{' (as shares of the image)' if shares else ''}"
    return Reader(f"{kind} [N, {'places' if many else 'queries'}, 4], and {words}", read)


def _scores_of(scores: _Upright) -> tuple[str, Callable[[Values], Values]] | str:
    """What the scores are and how they become such from 0 to 1; or why that is left open."""
    rows = np.concatenate([each.reshape(-1, scores.width) for each in scores.rows])
    shares = is_share(rows)
    if shares and scores.width > 1 and np.abs(rows.sum(axis=1) - 1).max() < _ONE:
        background = [place for place in (0, -1) if rows[:, place].mean() > 0.5]
        if len(background) != 1:
            return "the probabilities leave open which class stands for no object"
        kept = slice(1, None) if background[0] == 0 else slice(None, -1)
        return "probabilities with one for no object", lambda values: values[:, kept]
    if shares:
        return "scores", lambda values: values
    if scores.width > 1 and (rows.argmax(axis=1) == scores.width - 1).mean() > 0.5:
        return "the logits leave open whether their last class stands for no object"
    return "logits", sigmoid
