"""Blocks with attention over channels inside, whatever its form; and what only looks like a gate."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.patterns.detector.built import Conv, Gate, Residual, recognised, traced
from tests.recognition.recovery import tree_of

C = 16


class LinearGate(nn.Module):
    """Squeeze and excitation by matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(C, 4), nn.ReLU(), nn.Linear(4, C), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class ECA(nn.Module):
    """A convolution along the channels of the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3)).view(1, 1, C)).sigmoid().view(1, C, 1, 1)
        return x * y.expand_as(x)


class Context(nn.Module):
    """GCNet's: the mean is weighted by the softmax of one channel; scaled by it, or shifted."""

    def __init__(self, scale: bool) -> None:
        super().__init__()
        self.mask, self.scale = nn.Conv2d(C, 1, 1), scale
        self.layers = nn.Sequential(nn.Conv2d(C, 4, 1), nn.ReLU(), nn.Conv2d(4, C, 1))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.mask(x).flatten(2).softmax(-1).transpose(1, 2)
        y = self.layers((x.flatten(2) @ weights)[..., None])
        return x * y.sigmoid() if self.scale else x + y


class Spatial(nn.Module):
    """A gate for each position: no attention over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x).sigmoid()


class FromOutside(nn.Module):
    """A residual block that is gated by the mean of what enters, not of what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = Conv(C, C, 3, act=nn.ReLU), Conv(C, C, 3, act=None)
        self.fc = nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]
        return functional.relu(x + self.conv2(self.conv1(x)) * gate)


class Affine(nn.Module):
    """A scale and a shift: numbers, or one for each channel."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.full(shape, 0.9)), nn.Parameter(torch.full(shape, 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


def bottleneck(gate: nn.Module, act: type[nn.Module] = nn.ReLU, stride: int = 1) -> nn.Module:
    body = (Conv(C, C, 1, stride, act=act), Conv(C, C, 3, act=act), gate, Conv(C, C, act=None))
    return Residual(nn.Sequential(*body), Conv(C, C, 1, stride, act=None) if stride > 1 else None, act=act())


def basic(gate: nn.Module) -> nn.Module:
    body = (Conv(C, C, 3, act=nn.ReLU), Conv(C, C, 3, act=None), gate)
    return Residual(nn.Sequential(*body), act=nn.ReLU())


def inverted(gate: nn.Module) -> nn.Module:
    depth = (Conv(C, C, 3, g=C, act=None), gate, nn.Hardswish())
    return Residual(nn.Sequential(Conv(C, C, act=nn.Hardswish), *depth, Conv(C, C, act=None)))


def activated(affine: nn.Module) -> nn.Module:
    return nn.Sequential(Conv(C, C, 3, act=nn.ReLU), affine)


WHOLE: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "ECA-ResNet": ("ResNetBottleneck", lambda: bottleneck(ECA())),
    "GC-ResNet, scaled": ("ResNetBottleneck", lambda: bottleneck(Context(True))),
    "GC-ResNet, shifted": ("ResNetBottleneck", lambda: bottleneck(Context(False))),
    "GC-ResNet with SiLU": ("ResNetBottleneck", lambda: bottleneck(Context(True), nn.SiLU)),
    "SE-ResNet by matrix products": ("BasicBlock", lambda: basic(LinearGate())),
    "ECA-ResNet-18": ("BasicBlock", lambda: basic(ECA())),
    "stride in the first 1x1": ("ResNetBottleneck", lambda: bottleneck(nn.Identity(), stride=2)),
    "MobileNetV3, gate in front of the activation": ("InvertedResidual", lambda: inverted(Gate(C))),
    "the same by matrix products": ("InvertedResidual", lambda: inverted(LinearGate())),
    "Conv with affine": ("Conv", lambda: activated(Affine(1))),
}
NEAR: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "a gate for each position": ("ResNetBottleneck", lambda: bottleneck(Spatial())),
    "a gate from outside": ("BasicBlock", FromOutside),
}


@pytest.mark.parametrize("form", WHOLE)
def test_blocks_with_gates_are_found_whole(form: str) -> None:
    kind, make = WHOLE[form]
    tree = recognised(make())
    assert [block.type for block in tree.blocks] == ["Conv", kind]
    assert sum(len(block.nodes) for block in tree.blocks) == len(tree.view.active) - 1, "all but the MaxPool"


@pytest.mark.parametrize("form", NEAR)
def test_other_gates_are_none(form: str) -> None:
    kind, make = NEAR[form]
    assert recognised(make()).of_type(kind) == []


def test_an_affine_block_keeps_the_name_of_the_activation() -> None:
    conv = recognised(activated(Affine(1))).blocks[1]
    assert conv.facts["activation"] == "relu"


def test_a_scale_for_each_channel_behind_an_activation_is_no_part_of_the_convolution() -> None:
    tree = recognised(activated(Affine(C, 1, 1)))
    assert sum(len(block.nodes) for block in tree.blocks) == len(tree.view.active) - 3


def test_residual_through_sum() -> None:
    model = traced(nn.Sequential(Conv(3, C, 3, act=nn.ReLU), bottleneck(nn.Identity())), 32)
    for node in model.graph.node:
        node.op_type = {"Add": "Sum"}.get(node.op_type, node.op_type)
    onnx.checker.check_model(model)
    assert [block.type for block in tree_of(model).blocks] == ["Conv", "ResNetBottleneck"]
