"""Blocks, roles and strides are the same in a model whose exporter left parts of it in NHWC."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest

import graphsurgery as gsx
from graphsurgery.outline.outline import Outline
from tests import exports
from tests.channels_last import ELEMENTWISE, channels_last
from tests.models import detector

KEPT = {
    "everything": ELEMENTWISE,
    "joins": {"Add", "Concat"},
    "activations": {"Mul", "Relu", "Sigmoid"},
    "halves": {"Concat", "Split"},
    "image": set[str](),
}


def _seen(outline: Outline) -> list[tuple[object, ...]]:
    return [(row.type, row.stride, row.role, row.roles) for row in outline.rows(None)]


def _plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without its names, with the shapes that can be inferred."""
    inferred = onnx.shape_inference.infer_shapes(model)
    for node in inferred.graph.node:
        node.ClearField("name")
    return inferred


@pytest.mark.parametrize("kept", KEPT)
def test_a_small_detector(kept: str) -> None:
    base = _plain(detector())
    assert _seen(gsx.outline(channels_last(base, KEPT[kept]))) == _seen(gsx.outline(base))


def test_a_detector() -> None:
    """What is elementwise in NHWC, as TensorFlow's exporters leave it: every block and role of the model in NCHW."""
    base = _plain(onnx.load(exports.export("yolov8n", "simplified")))
    turned = gsx.outline(channels_last(base))
    assert _seen(turned) == _seen(gsx.outline(base))
    said = Counter(row.objection.short if row.objection else "" for row in turned.rows(None))
    assert said[""] > 40
    assert set(said) == {"", "NHWC", "not a map", "read as tokens only"}


@pytest.mark.long
@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("name", ["yolo11n", "yolo12n", "yolov5n", "yolov10n"])
def test_other_detectors(name: str, kept: str) -> None:
    base = _plain(onnx.load(exports.export(name, "simplified")))
    assert _seen(gsx.outline(channels_last(base, KEPT[kept]))) == _seen(gsx.outline(base))
