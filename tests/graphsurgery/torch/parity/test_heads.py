"""What Ultralytics' heads give, column by column, and RT-DETR's choice of queries, on stand-ins for the heads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from graphsurgery.errors import ParityFailed
from graphsurgery.torch.parity import comparison, queries
from graphsurgery.torch.parity.live import Live
from graphsurgery.torch.parity.pair import Pair
from graphsurgery.torch.parity.report import WholeReport
from graphsurgery.torch.parity.ultralytics_heads import layout_of, ways


def head(kind: str, base: str = "", **values: object) -> nn.Module:
    """A module of a class of that name, as of Ultralytics."""
    bases: tuple[type, ...] = (nn.Module,)
    if base:
        bases = (type(base, bases, {"__module__": "ultralytics.nn.modules.head"}),)
    made: nn.Module = type(kind, bases, {"__module__": "ultralytics.nn.modules.head", "end2end": False})()
    for name, value in values.items():
        setattr(made, name, value)
    return nn.Sequential(nn.Identity(), made)


@pytest.mark.parametrize(
    ("model", "shapes", "found"),
    [
        (head("Detect", nc=3), [(1, 7, 20)], {"boxes": "px", "scores": "score"}),
        (head("Detect", nc=3, end2end=True), [(1, 20, 6)], {"boxes": "px", "scores": "score", "classes": "exact"}),
        (
            head("Pose", "Detect", nc=1, kpt_shape=(2, 2)),
            [(1, 9, 20)],
            {"boxes": "px", "scores": "score", "keypoints": "px"},
        ),
        (head("OBB", "Detect", nc=3, ne=1), [(1, 8, 20)], {"boxes": "px", "scores": "score", "angle": "own scale"}),
        (
            head("Segment", "Detect", nc=3, nm=4),
            [(1, 11, 20), (1, 4, 5, 5)],
            {"boxes": "px", "scores": "score", "mask coefficients": "own scale", "mask prototypes": "own scale"},
        ),
        (head("Classify"), [(1, 10)], {"scores": "score"}),
        (head("RTDETRDecoder", nc=80), [(1, 30, 84)], {"boxes": "px", "scores": "score"}),
        (
            head("RTDETRDecoder", nc=80, postprocess=print),
            [(1, 30, 6)],
            {"boxes": "px", "scores": "score", "classes": "exact"},
        ),
        (head("Detect", nc=3), [(1, 8, 20)], None),
        (head("Detect", nc=3), [(7, 20)], None),
        (nn.Identity(), [(1, 7, 20)], None),
    ],
    ids=str,
)
def test_columns(model: nn.Module, shapes: list[tuple[int, ...]], found: dict[str, str] | None) -> None:
    outputs = [np.zeros(shape, np.float32) for shape in shapes]
    names = [f"output{i}" for i in range(len(outputs))]
    layout = layout_of(model, names, outputs, [False] * len(outputs), (320, 640))
    if found is None:
        assert layout is None
        return
    assert layout is not None
    assert {q.name: str(q.unit) for table in layout.tables for q in table.quantities} == found
    assert len(layout.lines) == len(outputs)


def test_boxes_of_rt_detr_are_shares_of_width_and_height() -> None:
    model = head("RTDETRDecoder", nc=80, postprocess=print)
    layout = layout_of(model, ["output0"], [np.zeros((1, 30, 6))], [True], (320, 640))
    assert layout is not None
    assert layout.tables[0].quantities[0].scale == (640, 320, 640, 320)


def test_images_that_tell_little_of_the_classes_are_told() -> None:
    outputs = [np.zeros((1, 7, 20), np.float32)]
    outputs[0][0, 0], outputs[0][0, 5, 3] = 99.0, 0.03
    layout = layout_of(head("Detect", nc=3), ["output0"], outputs, [False], (320, 640))
    assert layout is not None
    assert layout.largest_score(outputs) == pytest.approx(0.03)
    pair = cast(Pair, SimpleNamespace(left_over=()))
    (note,) = comparison._notes([0.03, 0.01], pair)
    assert note.startswith("no score on these images is above 3.0e-02, so that they tell little of the classes; give")
    assert comparison._notes([0.03, 0.2], pair) == comparison._notes([], pair) == ()


def test_both_heads_of_an_end_to_end_network_are_tried() -> None:
    model = head("Detect", nc=3, one2one_cv2=nn.Identity())
    said = [words for words, _ in ways(model, [np.zeros((1, 20, 6))], dynamic=False)]
    assert said == [
        "run as Ultralytics exports it end to end",
        "run as Ultralytics exports its one-to-many head",
        "as it is called",
    ]
    (_, prepare), *_ = ways(model, [np.zeros((1, 20, 6))], dynamic=True)
    prepare(model)
    inner: Any = model[1]  # type: ignore[index]
    assert (inner.export, inner.format, inner.end2end, inner.max_det) == (True, "onnx", True, 20)


class Queries(nn.Module):
    """RT-DETR's choice: so many places with the highest scores, and what becomes of the rest is up to them."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.enc_score_head = nn.Linear(1, 2)
        self.num_queries, self.nc, self.export, self.max_det = 3, 2, False, 3
        self.margin = margin
        with torch.no_grad():
            self.enc_score_head.weight.fill_(0.1)
            self.enc_score_head.bias.fill_(1 / 3)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.tensor([9.0, 8.0, 7.0, 7.0 - self.margin, 1.0], dtype=x.dtype)[None, :, None]
        return self.enc_score_head(places + 0 * x.mean())


Queries.__module__ = "ultralytics.nn.modules.head"
Queries.__name__ = "RTDETRDecoder"


@pytest.mark.parametrize(("margin", "tie"), [(0.0, True), (1e-7, True), (0.1, False)])
def test_ties_among_queries(margin: float, tie: bool) -> None:
    live = Live(Queries(margin))
    feeds = {"x": np.zeros((1, 3, 4, 4), np.float32)}
    assert queries.is_tie(live, feeds, torch.float32, torch.float64) is tie


def test_other_models_have_no_queries() -> None:
    feeds = {"x": np.zeros((1, 3, 4, 4), np.float32)}
    assert not queries.is_tie(Live(nn.Identity()), feeds, torch.float32, torch.float64)


def test_nothing_but_ties_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "is_tie", lambda *_: True)
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) { y = Relu (x) }'
    report: WholeReport = comparison.compare(onnx.parser.parse_model(text), nn.Softplus(), providers="cpu")
    assert not report.passed
    assert report.ties == ("a random image",)
    with pytest.raises(
        ParityFailed, match=r"could not be compared with the module: on every image .* give other images="
    ):
        report.require()
