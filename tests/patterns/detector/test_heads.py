"""The name of what ends a network: a detector's head is one, the last convolution of other networks is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.patterns.detector.built import Conv, traced
from tests.recognition.built import built
from tests.recognition.families.parts import FPN, ResNet, larger
from tests.recognition.recovery import tree_of

SIZE = 64


def _as_it_is(x: Tensor) -> Tensor:
    return x


class UNet(nn.Module):
    """Encoder and decoder to the size of the image; side outputs at the sizes on the way."""

    def __init__(self, end: Callable[[Tensor], Tensor] = _as_it_is, *, sides: bool = False) -> None:
        super().__init__()
        self.down = nn.ModuleList(Conv(i, o, 3) for i, o in ((3, 8), (8, 16), (16, 32)))
        self.up = nn.ModuleList(Conv(i, o, 3) for i, o in ((48, 16), (24, 8)))
        self.out, self.side = nn.Conv2d(8, 2, 1), nn.Conv2d(16, 2, 1) if sides else None
        self.end = end

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        first = self.down[0](x)
        second = self.down[1](functional.max_pool2d(first, 2))
        y = self.up[0](torch.cat([larger(self.down[2](functional.max_pool2d(second, 2))), second], 1))
        side = () if self.side is None else (self.side(y).sigmoid(),)
        return self.end(self.out(self.up[1](torch.cat([larger(y), first], 1)))), *side


class OneScale(nn.Module):
    """An FPN's finest map, and convolutions on it."""

    def __init__(self, *widths: int, joined: bool = False) -> None:
        super().__init__()
        self.backbone = ResNet(8)
        self.neck = FPN(self.backbone.widths, 16)
        self.heads = nn.ModuleList(nn.Sequential(Conv(16, 16, 3), nn.Conv2d(16, width, 1)) for width in widths)
        self.joined = joined

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.neck(self.backbone(x))[0]
        found = tuple(head(x) for head in self.heads)
        return (torch.cat((found[0].sigmoid(), *found[1:]), 1),) if self.joined else found


class Levels(nn.Module):
    """One convolution for each map of an FPN."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet(8)
        self.neck = FPN(self.backbone.widths, 16)
        self.heads = nn.ModuleList(nn.Conv2d(16, 18, 1) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(head(x) for head, x in zip(self.heads, self.neck(self.backbone(x)), strict=True))


class Transformer(nn.Module):
    """Layers over the positions of a backbone's last map, and what they give."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Conv(3, 8, 3, 2), Conv(8, 16, 3, 2))
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.norm = nn.LayerNorm(16)
        self.heads = nn.ModuleList(nn.Linear(16, width) for width in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.backbone(x).flatten(2).transpose(1, 2)
        weights = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(-1)
        x = self.norm(x + weights @ self.value(x))
        return tuple(head(x) for head in self.heads)


HEADS: dict[str, Callable[[], nn.Module]] = {
    "one convolution a level": Levels,
    "several things at one stride": lambda: OneScale(20, 2, 4),
    "the same in one tensor": lambda: OneScale(1, 4, 20, joined=True),
}
NONE: dict[str, Callable[[], nn.Module]] = {
    "segmentation": UNet,
    "segmentation, probabilities": lambda: UNet(lambda x: x.softmax(1)),
    "segmentation, classes": lambda: UNet(lambda x: x.argmax(1)),
    "segmentation, channels last": lambda: UNet(lambda x: x.permute(0, 2, 3, 1)),
    "segmentation with side outputs": lambda: UNet(sides=True),
    "enhancement": lambda: UNet(lambda x: x.tanh() + 1),
    "one map of heat": lambda: OneScale(17),
    "tokens of a classifier": lambda: Transformer(10),
    "tokens and their scores": lambda: Transformer(10, 3),
}


def _heads(model: nn.Module) -> list[str]:
    tree = tree_of(traced(model, SIZE))
    return [block.type for block in tree.blocks if block.type.endswith(("Detect", "Decoder"))]


@pytest.mark.parametrize("form", HEADS)
def test_what_detects_is_a_head(form: str) -> None:
    assert _heads(HEADS[form]()) == ["Detect"]


@pytest.mark.parametrize("form", NONE)
def test_what_ends_other_networks_is_no_detection_head(form: str) -> None:
    assert _heads(NONE[form]()) == []


def test_the_last_convolution_of_a_segmentation_is_listed_as_such() -> None:
    tree = tree_of(traced(UNet(), SIZE))
    assert [block.type for block in tree.blocks][-1] == "Conv"


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind"), [("hf-detr", "DETRDecoder"), ("hf-rfdetr", "RTDETRDecoder")])
def test_the_head_of_a_transformer_reads_its_one_map(name: str, kind: str) -> None:
    tree = tree_of(built(name).model)
    (head,) = [block for block in tree.blocks if block.role == "head"]
    assert head.type == kind
    assert len(head.entries) == 1
    assert tree.stride(head.entries[0]) in (16, 32)


def test_boxes_make_a_decoder_of_tokens() -> None:
    assert _heads(Transformer(10, 4)) == ["DETRDecoder"]
