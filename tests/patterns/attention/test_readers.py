"""The templates in other hands: OpenVINO's and OpenCV's ONNX readers, float32, static sites."""

from __future__ import annotations

import numpy as np
import pytest

from graphsurgery.userblocks import make_block
from tests.patterns.attention.evaluators import OpenCv, OpenVino
from tests.patterns.attention.harness import Settings, build, every_block, feature_map, few_inputs, trait
from tests.patterns.attention.verdicts import assert_agrees


@pytest.mark.pairwise
@every_block
@pytest.mark.parametrize("opset", [9, 11, 17, 22])
@pytest.mark.parametrize("reader", [OpenVino, OpenCv])
@pytest.mark.parametrize("size", [(13, 21), (38, 46)])
def test_another_reader_gives_the_same(
    size: tuple[int, int], reader: type[OpenVino] | type[OpenCv], opset: int, block: tuple[str, Settings]
) -> None:
    if reader.__name__ in trait(block[0], "NOT_READ_BY", ()):
        pytest.skip(f"{reader.__name__} cannot read this block")
    pytest.importorskip({OpenVino: "openvino", OpenCv: "cv2"}[reader])
    feature = feature_map(8, *size)
    for lowering in make_block(*block).lowerings(feature, opset):
        if f"{reader.__name__}: {lowering}" in trait(block[0], "NOT_READ_BY", ()):
            continue
        built = build(*block, feature, opset=opset, lowering=lowering)
        assert_agrees(built, reader(built.model), few_inputs(feature), what=reader.__name__)


def test_opencv_cannot_resize_two_axes_only() -> None:
    """Where there is no exact scale and the batch is dynamic, from opset 18 on: all else it can read."""
    cv2 = pytest.importorskip("cv2")
    built = build("ge", {"extent": 4}, feature_map(8, 38, 46, batch=None), opset=18)
    with pytest.raises(cv2.error):
        OpenCv(built.model)
    assert_agrees(built, OpenVino(built.model), [("x", np.ones((1, 8, 38, 46), np.float32))])
