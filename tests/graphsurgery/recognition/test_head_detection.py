"""Where a head begins: on small detectors whose necks end in what could be taken for a part of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsurgery.recognition import BlockTree
from tests.patterns.detector.built import Conv, traced
from tests.recognition.recovery import tree_of

C = 16


class Detector(nn.Module):
    """A backbone with maps of strides 4 and 8, an FPN or a YOLOv3 neck, and a head that is the same on both."""

    def __init__(self, neck: str, head: Callable[[int], nn.Module], masks: bool = False, resized: bool = False) -> None:
        super().__init__()
        self.neck, self.resized = neck, resized
        self.stages = nn.ModuleList([nn.Sequential(Conv(3, 8, 3, 2), Conv(8, 16, 3, 2)), Conv(16, 32, 3, 2)])
        self.lateral = nn.ModuleList([nn.Conv2d(16, C, 1), nn.Conv2d(32, C, 1)])
        self.smooth = nn.ModuleList([nn.Conv2d(C, C, 3, padding=1), nn.Conv2d(C, C, 3, padding=1)])
        self.extra = nn.Conv2d(C, C, 3, 2, 1)
        self.first, self.up = Conv(32, 24, 3), Conv(24, C)
        self.last = nn.Sequential(Conv(C + 16, C), Conv(C, C, 3))
        widths = [C, C, C] if neck == "fpn" else [C, 24]
        self.heads = nn.ModuleList(head(width) for width in widths)
        self.masks = nn.Sequential(Conv(C, C, 3), nn.Upsample(scale_factor=2), Conv(C, 8)) if masks else None

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.resized:
            x = functional.interpolate(x, size=(64, 64), mode="bilinear")
        fine = self.stages[0](x)
        coarse = self.stages[1](fine)
        maps = self.pyramid(fine, coarse) if self.neck == "fpn" else self.straight(fine, coarse)
        outputs = [head(one).flatten(2) for head, one in zip(self.heads, maps, strict=True)]
        return outputs if self.masks is None else [*outputs, self.masks(maps[0])]

    def pyramid(self, fine: Tensor, coarse: Tensor) -> list[Tensor]:
        top = self.lateral[1](coarse)
        inner = self.lateral[0](fine) + functional.interpolate(top, scale_factor=2.0)
        last = self.smooth[1](top)
        return [self.smooth[0](inner), last, self.extra(last)]

    def straight(self, fine: Tensor, coarse: Tensor) -> list[Tensor]:
        top = self.first(coarse)
        joined = torch.cat((functional.interpolate(self.up(top), scale_factor=2.0), fine), 1)
        return [self.last(joined), top]


class Decoupled(nn.Module):
    """Boxes and classes by towers of their own; with ``stem``, behind a convolution that both read."""

    def __init__(self, width: int, stem: bool = False, normalised: bool = False) -> None:
        super().__init__()
        self.stem = Conv(width, C) if stem else nn.Identity()
        before = C if stem else width
        norm: list[nn.Module] = [nn.GroupNorm(4, C)] if normalised else []
        self.box = nn.Sequential(nn.Conv2d(before, C, 3, padding=1), *norm, nn.ReLU(), nn.Conv2d(C, 4, 1))
        self.kind = nn.Sequential(nn.Conv2d(before, C, 3, padding=1), *norm, nn.ReLU(), nn.Conv2d(C, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.cat((self.box(x), self.kind(x)), 1)


def coupled(width: int) -> nn.Module:
    return nn.Conv2d(width, 12, 1)


def recognised(model: nn.Module) -> BlockTree:
    torch.manual_seed(0)
    return tree_of(traced(model, 64))


FORMS: dict[str, Callable[[], Detector]] = {
    "decoupled on an FPN": lambda: Detector("fpn", Decoupled),
    "coupled on an FPN": lambda: Detector("fpn", coupled),
    "normalised on an FPN": lambda: Detector("fpn", lambda width: Decoupled(width, normalised=True)),
    "decoupled behind convolutions": lambda: Detector("yolo", Decoupled),
    "coupled behind convolutions": lambda: Detector("yolo", coupled),
    "with a stem behind convolutions": lambda: Detector("yolo", lambda width: Decoupled(width, stem=True)),
    "with masks": lambda: Detector("fpn", Decoupled, masks=True),
    "behind a Resize of the image": lambda: Detector("fpn", Decoupled, resized=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_head_begins_where_it_is_the_same_on_every_map(form: str) -> None:
    model = FORMS[form]()
    tree = recognised(model)
    ends = {"fpn": ("/smooth.0/Conv", "/smooth.1/Conv", "/extra/Conv"), "yolo": ("/last/last.1/", "/first/")}[
        model.neck
    ]
    outputs = tree.role("neck-outputs")
    assert len(outputs) == len(ends)
    assert all(any(name.startswith(end) for name in outputs) for end in ends), outputs
    assert [tree.stride(name) for name in (*tree.role("p2"), *tree.role("p3"))] == [4, 8]
    (head,) = [block for block in tree.blocks if block.role == "head"]
    assert sorted(head.entries) == sorted(outputs)
    if model.neck == "fpn":
        assert tree.role("p3") == ["/stages.1/stages.1.2/Mul_output_0"], "the lateral convolution is the neck's"


def test_what_differs_at_every_stride_is_no_head() -> None:
    model = Detector("yolo", coupled)
    model.heads[1] = Decoupled(24)
    tree = recognised(model)
    assert tree.role("neck-outputs") == []
    assert not [block for block in tree.blocks if block.role == "head"]


def test_a_convolution_of_another_width_at_every_stride_belongs_to_the_neck() -> None:
    class Widths(nn.Module):
        def __init__(self, *widths: int) -> None:
            super().__init__()
            self.stages = nn.ModuleList([nn.Sequential(Conv(3, 8, 3, 2), Conv(8, C, 3, 2)), Conv(C, C, 3, 2)])
            self.last = nn.ModuleList(Conv(C, width, 3) for width in widths)
            self.heads = nn.ModuleList(Decoupled(width) for width in widths)

        def forward(self, x: Tensor) -> list[Tensor]:
            fine = self.stages[0](x)
            coarse = self.stages[1](fine)
            maps = (fine + functional.interpolate(coarse, scale_factor=2.0), coarse)
            return [head(last(m)).flatten(2) for head, last, m in zip(self.heads, self.last, maps, strict=True)]

    for widths, before_the_head in (((24, 16), "/last."), ((16, 16), "/stages.1/ /Add")):
        outputs = recognised(Widths(*widths)).role("neck-outputs")
        assert len(outputs) == 2
        assert all(name.startswith(tuple(before_the_head.split())) for name in outputs), outputs


def test_a_classifier_with_an_enlarging_gate_has_no_neck() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.gate, self.last = Conv(3, C, 3, 2), Conv(C, C, act=None), Conv(C, C, 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            gate = functional.interpolate(self.gate(functional.avg_pool2d(x, 2)), scale_factor=2.0).sigmoid()
            return self.last(x * gate).mean((2, 3))  # type: ignore[no-any-return]

    tree = recognised(Gated())
    assert {block.role for block in tree.blocks} == {"backbone"}
    assert tree.role("neck-outputs") == []


def test_the_smallest_map_of_an_ssd_may_have_a_plain_convolution() -> None:
    def separable(out: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(C, C, 3, padding=1, groups=C), nn.ReLU(), nn.Conv2d(C, out, 1))

    class Ssd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList(Conv(C if i else 3, C, 3, 2) for i in range(4))
            self.boxes = nn.ModuleList([separable(8), separable(8), nn.Conv2d(C, 8, 3, padding=1)])
            self.kinds = nn.ModuleList([separable(4), separable(4), nn.Conv2d(C, 4, 3, padding=1)])

        def forward(self, x: Tensor) -> list[Tensor]:
            maps = []
            for stage in self.stages:
                x = stage(x)
                maps.append(x)
            pairs = [zip(layers, maps[1:], strict=True) for layers in (self.boxes, self.kinds)]
            return [torch.cat([layer(m).permute(0, 2, 3, 1).flatten(1, 2) for layer, m in pair], 1) for pair in pairs]

    tree = recognised(Ssd())
    assert [block.output for block in tree.blocks if block.role == "backbone"][1:] == tree.role("neck-outputs")
    assert [tree.role(f"p{i}") != [] for i in (1, 2, 3, 4, 5)] == [True] * 4 + [False]
    (head,) = [block for block in tree.blocks if block.role == "head"]
    assert len(head.entries) == 3
