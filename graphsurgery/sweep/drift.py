"""Drift: how far the outputs of a model with a block are from those of the model without it, on the same images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RequestError
from ..feature_map import Array
from ..modelfile.model import ModelFile
from ..runtime.sample_inputs import GraphInput, graph_inputs, image_feeds, random_feeds
from ..runtime.session import session
from .detections import Detections, overlaps
from .outputs import Reader

_SAME = 0.5
"""two boxes of one class that overlap by more are one detection"""


@dataclass(frozen=True)
class Images:
    """What a model is run on."""

    inputs: tuple[GraphInput, ...]
    """with every size known"""
    folder: Path | None
    """its whole path, since others may start elsewhere; None: noise"""
    seed: int = 0
    called: str = ""
    """the folder as it was given"""

    @classmethod
    def of(cls, model: ModelFile, sizes: dict[str, tuple[int, ...]], folder: Path | None, seed: int) -> Images:
        """For a model whose inputs have these ``sizes``. RequestError for images that cannot be read."""
        inputs = tuple(GraphInput(each.name, each.dtype, sizes[each.name]) for each in graph_inputs(model.structure))
        images = cls(inputs, folder.absolute() if folder else None, seed, str(folder))
        for _ in images.feeds():  # all of them are read before anything is measured
            pass
        return images

    @property
    def words(self) -> str:
        """Which images they are."""
        if self.folder is None:
            return f"an image of noise, seed {self.seed}"
        count = sum(1 for _ in self.feeds())
        return f"{count} image{'' if count == 1 else 's'} of {self.called}"

    @property
    def pixels(self) -> tuple[int, int] | None:
        """Height and width of the first image input."""
        found = next((each for each in self.inputs if each.is_image), None)
        if found is None:
            return None
        height, width = found.shape[1:3] if found.channels_last else found.shape[2:]
        return height or 0, width or 0

    def feeds(self) -> Iterator[dict[str, Array]]:
        """The inputs of the model for each image."""
        if self.folder is None:
            yield random_feeds(self.inputs, 0, self.seed)
        else:
            for _, feeds in image_feeds(self.inputs, self.folder, 0):
                yield feeds

    def as_folder(self, where: Path) -> Path:
        """A folder with the images: the one that was given, or ``where`` with the noise in a file."""
        if self.folder is not None:
            return self.folder
        image = next((each for each in self.inputs if each.is_image), None)
        if image is None:
            raise RequestError("the model has no image input, so that there is nothing to calibrate on")
        (feeds,) = self.feeds()
        np.save(where / "noise.npy", feeds[image.name])
        return where


Outputs = list[list[Array]]
"""of each image, each output"""


def outputs_of(model: ModelFile, images: Images) -> Outputs:
    """What a model gives for each image, on the CPU. CannotRun and NoKernel."""
    return timed_outputs(model, images)[0]


def timed_outputs(model: ModelFile, images: Images) -> tuple[Outputs, float]:
    """The same, and the seconds that the last image took."""
    ready = session(model.to_bytes(), "cpu", folder=model.folder, frugal=True)
    found, seconds = [], 0.0
    for feeds in images.feeds():
        begun = time.monotonic()
        found.append(ready.run(feeds))
        seconds = time.monotonic() - begun
    return found, seconds


def detections_in(outputs: Outputs, read: Reader) -> list[Detections]:
    """What a detector finds on each image."""
    return [read.read(each) for each in outputs]


def drift(before: Outputs, after: Outputs, read: Reader | None, found_before: Sequence[Detections]) -> dict[str, Any]:
    """{"relative", "boxes", "scores", "changed", "detections", "reason"}; see docs/sweep.md. ``found_before``: the
    detections in ``before``, where they can be read.
    """
    pairs = [pair for old, new in zip(before, after, strict=True) for pair in _floats(old, new)]
    if not all(np.isfinite(each).all() for _, each in pairs):
        return {**NOT_COMPARED, "reason": "the outputs hold values that are infinite or not a number"}
    errors = [_norm(new - old) / max(_norm(old), 1e-30) for old, new in pairs if old.shape == new.shape]
    found = {**NOT_COMPARED, "relative": max(errors, default=None)}
    if len(errors) < len(pairs):
        found |= {"relative": None, "reason": "the model chose another number of detections"}
    if read is None:
        return found
    compared = [_matched(*each) for each in zip(found_before, detections_in(after, read), strict=True)]
    boxes = [box for each in compared for box in each[0]]
    scores = [score for each in compared for score in each[1]]
    return {
        **found,
        "boxes": max(boxes, default=None),
        "scores": max(scores, default=None),
        "changed": sum(each[2] for each in compared),
        "detections": sum(len(each.scores) for each in found_before),
    }


NOT_COMPARED: dict[str, Any] = {
    **dict.fromkeys(("relative", "boxes", "scores", "changed", "detections")),
    "reason": "",
}
"""a start whose drift is not known"""


def _floats(old: Sequence[Array], new: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
    for before, after in zip(old, new, strict=True):
        if before.dtype.kind in "fV":
            yield before.astype(np.float64), after.astype(np.float64)


def _norm(values: Array) -> float:
    """The same whatever the number of threads, which NumPy's own is not."""
    return float(np.sqrt(np.square(values).sum()))


def _matched(old: Detections, new: Detections) -> tuple[list[float], list[float], int]:
    """Of detections that are in both: the largest move of an edge in pixels and the difference of scores, each; and how
    many are in one alone.
    """
    boxes, scores, free = [], [], set(range(len(new.scores)))
    overlap = overlaps(old.boxes, new.boxes)
    for i in range(len(old.scores)):
        same = [j for j in free if new.classes[j] == old.classes[i] and overlap[i, j] > _SAME]
        if same:
            j = max(same, key=lambda each: overlap[i, each])
            free.discard(j)
            boxes.append(float(np.abs(old.boxes[i] - new.boxes[j]).max()))
            scores.append(float(abs(old.scores[i] - new.scores[j])))
    return boxes, scores, len(old.scores) - len(boxes) + len(free)
