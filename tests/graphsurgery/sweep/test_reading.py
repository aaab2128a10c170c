"""Detections in outputs of every kind: each is made from the same boxes, and has to give them back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import graphsurgery as gsx
from graphsurgery.sweep.drift import drift
from graphsurgery.sweep.outputs import Reader
from graphsurgery.sweep.reading import reader
from tests.models import model, node, value, weight

Values = npt.NDArray[Any]
SIDE = 64
BOXES = np.array([[8, 4, 40, 36], [20, 24, 60, 56]], np.float64)
SCORES = np.array([0.875, 0.625])
CLASSES = np.array([2, 0])
COUNT = 5
"""classes"""
PLACES = 8 * 8 + 4 * 4 + 2 * 2


def centres(boxes: Values) -> Values:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def scattered(boxes: Values, count: int) -> tuple[Values, Values]:
    """The boxes among others that score nothing: [count, 4], and the scores [count, classes]."""
    everything, scores = np.tile(np.array([30.0, 40.0, 5.0, 6.0]), (count, 1)), np.full((count, COUNT), 0.001)
    for place, box, score, kind in zip((5, 11), boxes, SCORES, CLASSES, strict=True):
        everything[place], scores[place, kind] = box, score
    return everything, scores


def logits(scores: Values) -> Values:
    return np.log(scores / (1 - scores))


def as_batch(*outputs: Values) -> list[Values]:
    return [each[None].astype(np.float32) for each in outputs]


def yolov8() -> list[Values]:
    boxes, scores = scattered(centres(BOXES), PLACES)
    return as_batch(np.concatenate([boxes, scores], axis=1).T)


def yolov5() -> list[Values]:
    boxes, scores = scattered(centres(BOXES), 3 * PLACES)
    return as_batch(np.concatenate([boxes, np.ones((len(boxes), 1)), scores], axis=1))


def rtdetr() -> list[Values]:
    boxes, scores = scattered(centres(BOXES), 20)
    return as_batch(np.concatenate([boxes / SIDE, scores], axis=1))


def rtdetr_of_transformers() -> list[Values]:
    boxes, scores = scattered(centres(BOXES), 20)
    return as_batch(logits(scores), boxes / SIDE)


def detr() -> list[Values]:
    boxes, scores = scattered(centres(BOXES), 20)
    return as_batch(np.concatenate([scores, 1 - scores.sum(axis=1, keepdims=True)], axis=1), boxes / SIDE)


def ppyoloe() -> list[Values]:
    boxes, scores = scattered(BOXES, PLACES)
    boxes[:, 2:] += boxes[:, :2] * (scores.max(axis=1, keepdims=True) < 0.1)
    return as_batch(boxes, scores.T)


def chosen() -> list[Values]:
    rows = np.zeros((10, 6))
    rows[:2] = np.concatenate([BOXES, SCORES[:, None], CLASSES[:, None]], axis=1)
    return as_batch(rows)


def torchvision() -> list[Values]:
    return [BOXES.astype(np.float32), CLASSES, SCORES.astype(np.float32)]


def deployed_rtdetr() -> list[Values]:
    return [CLASSES[None], *as_batch(BOXES, SCORES)]


def trt_efficient_nms() -> list[Values]:
    return [np.array([[2]], np.int32), *as_batch(BOXES, SCORES), CLASSES[None].astype(np.int32)]


def yolov7() -> list[Values]:
    rows = np.concatenate([np.zeros((2, 1)), BOXES, CLASSES[:, None], SCORES[:, None]], axis=1)
    return [rows.astype(np.float32)]


def paddle() -> list[Values]:
    rows = np.concatenate([CLASSES[:, None], SCORES[:, None], BOXES], axis=1)
    return [rows.astype(np.float32), np.array([2], np.int32)]


def decoded_beside_raw_maps() -> list[Values]:
    rng = np.random.default_rng(0)
    return [*yolov8(), *(rng.standard_normal((1, 64 + COUNT, s, s)).astype(np.float32) for s in (8, 4, 2))]


def distributions(*, together: bool, raw: bool) -> list[Values]:
    """At the place of each box at stride 8, all of a side's distribution in one bin."""
    outputs: list[Values] = []
    for stride in (8, 16, 32):
        side = SIDE // stride
        bins, scores = np.zeros((4, 16, side, side)), np.full((COUNT, side, side), 0.001)
        if stride == 8:
            for box, score, kind in zip(BOXES, SCORES, CLASSES, strict=True):
                column, row = (int((box[i] + box[i + 2]) / 2 // 8) for i in (0, 1))
                scores[kind, row, column] = score
                x, y = column + 0.5, row + 0.5
                for number, distance in enumerate((x - box[0] / 8, y - box[1] / 8, box[2] / 8 - x, box[3] / 8 - y)):
                    low = int(distance)
                    bins[number, :, row, column] = -60
                    bins[number, low, row, column] = np.log(max(1 - (distance - low), 1e-12))
                    bins[number, low + 1, row, column] = np.log(max(distance - low, 1e-12))
        parts = as_batch(bins.reshape(64, side, side), logits(scores) if raw else scores)
        outputs += [np.concatenate(parts, axis=1)] if together else parts
    return outputs


def rockchip() -> list[Values]:
    return distributions(together=False, raw=False)


def yolov8_head() -> list[Values]:
    return distributions(together=True, raw=True)


KINDS: list[tuple[Callable[[], list[Values]], str]] = [
    (yolov8, "centres, sizes and scores [N, 4 + classes, places]"),
    (yolov5, "centres, sizes, objectness and scores [N, places, 5 + classes]"),
    (rtdetr, "centres, sizes (as shares of the image) and scores [N, queries, 4 + classes]"),
    (rtdetr_of_transformers, "centres and sizes (as shares of the image) [N, queries, 4], and logits"),
    (detr, "centres and sizes (as shares of the image) [N, queries, 4], and probabilities with one for no object"),
    (ppyoloe, "corners [N, places, 4], and scores"),
    (chosen, "corners, score and class [N, detections, 6]"),
    (torchvision, "corners [detections, 4], scores and classes"),
    (deployed_rtdetr, "corners [N, detections, 4], scores and classes"),
    (trt_efficient_nms, "corners [N, detections, 4], scores and classes"),
    (yolov7, "number in the batch, corners, class and score [detections, 7]"),
    (paddle, "class, score and corners [detections, 6]"),
    (decoded_beside_raw_maps, "centres, sizes and scores [N, 4 + classes, places]"),
    (rockchip, "distributions of the sides and scores at the strides 8, 16, 32"),
    (yolov8_head, "distributions of the sides and logits at the strides 8, 16, 32"),
]


def read(outputs: list[Values], height: int = SIDE) -> Reader | str:
    joined = [(64, COUNT)] * len(outputs) if outputs[0].shape[1:2] == (64 + COUNT,) else []
    return reader([outputs], height, SIDE, joined)


@pytest.mark.parametrize(("made", "words"), KINDS, ids=lambda each: each.__name__ if callable(each) else "")
def test_what_was_put_in_is_read(made: Callable[[], list[Values]], words: str) -> None:
    found = read(made())
    assert isinstance(found, Reader), found
    assert found.words == words
    detections = found.read(made())
    np.testing.assert_allclose(detections.boxes, BOXES, atol=1e-3)
    np.testing.assert_allclose(detections.scores, SCORES, atol=1e-6)
    assert detections.classes.tolist() == CLASSES.tolist()


def test_what_leaves_several_answers_is_not_read() -> None:
    rng = np.random.default_rng(0)
    heads = [rng.standard_normal((1, 3 * (5 + COUNT), s, s)).astype(np.float32) for s in (8, 4, 2)]
    boxes, scores = scattered(centres(BOXES), 20)
    nobody = np.concatenate([logits(scores), np.full((20, 1), 3.0)], axis=1)
    corners = as_batch(BOXES / SIDE, SCORES)
    said = {
        "raw maps at the strides 8, 16, 32: anchors": read(heads),
        "raw maps at the strides 8, 16, 32": reader([yolov8_head()], SIDE, SIDE),
        "leave open whether their last class stands for no object": read(as_batch(nobody, boxes / SIDE)),
        "either of the outputs [1, 20, 4] and [1, 20, 4] may be the boxes": read(as_batch(scores[:, :4], boxes / SIDE)),
        "leave open which of them are those of its height": read([*corners, CLASSES[None]], height=32),
        "several outputs may be the detections: [1, 9, 84], [1, 9, 84]": read(yolov8() * 2),
        "not known to be detections: [1, 10]": read([np.ones((1, 10), np.float32)]),
        "infinite or not a number": read([np.full((1, 7, PLACES), np.inf, np.float32)]),
    }
    for words, found in said.items():
        assert isinstance(found, str)
        assert words in found


def test_another_number_of_detections_is_no_error() -> None:
    before = torchvision()
    after = [each[:1] for each in before]
    found = read(before)
    assert isinstance(found, Reader)
    figures = drift([before], [after], found, [found.read(before)])
    assert (figures["relative"], figures["changed"], figures["detections"]) == (None, 1, 2)
    assert "another number of detections" in figures["reason"]
    assert (figures["boxes"], figures["scores"]) == (0.0, 0.0)


def test_maps_that_a_model_joins_are_known_by_their_parts(tmp_path: Path) -> None:
    """As YOLOv8's head gives them without its last part: what is joined tells sides from classes."""
    nodes, weights, outputs = [], [weight("stem", (8, 3, 8, 8))], []
    nodes.append(node("Conv", ["images", "stem"], ["p3"], "/stem/Conv", strides=[8, 8]))
    for level, side in enumerate((8, 4, 2), start=3):
        if level > 3:
            names = [f"p{level - 1}"], [f"p{level}"], f"/pool{level}/MaxPool"
            nodes.append(node("MaxPool", *names, kernel_shape=[2, 2], strides=[2, 2]))
        for part, channels in (("box", 64), ("cls", 3)):
            weights.append(weight(f"{part}{level}", (channels, 8, 1, 1)))
            nodes.append(node("Conv", [f"p{level}", f"{part}{level}"], [f"{part}_{level}"], f"/{part}{level}/Conv"))
        nodes.append(node("Concat", [f"box_{level}", f"cls_{level}"], [f"out{level}"], f"/join{level}/Concat", axis=1))
        outputs.append(value(f"out{level}", (1, 67, side, side)))
    onnx.save(model(nodes, [value("images", (1, 3, SIDE, SIDE))], outputs, weights), tmp_path / "head.onnx")
    found = gsx.sweep(tmp_path / "head.onnx", "simam", after="tensor:p3", rounds=2, warm_up=0, threads=1).to_json()
    assert found["detections"] == "distributions of the sides and logits at the strides 8, 16, 32"
    drifted = found["cells"][0]["drift"]["default"]
    assert drifted["detections"] > 0
    assert drifted["boxes"] is None or drifted["boxes"] > 0
