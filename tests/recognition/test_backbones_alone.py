"""Roles of backbones alone: those that give their maps, classifiers, and where a transformer takes the maps over."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.patterns.detector.built import Conv, Residual
from tests.recognition.randomise import randomise
from tests.recognition.recovery import tree_of

C = 8


def halving(c: int) -> nn.Module:
    """A residual block that widens at the stride before its own, and halves by a pooling."""
    body = nn.Sequential(Conv(c, 2 * c), nn.AvgPool2d(2), Conv(2 * c, 2 * c, 3, act=None))
    return Residual(body, nn.Sequential(nn.AvgPool2d(2), Conv(c, 2 * c, act=None)), nn.ReLU())


class Attention(nn.Module):
    """A layer of a transformer over the positions; normalised first, as in backbones, or last, as in encoders."""

    def __init__(self, c: int, first: bool = True, reduced: bool = False) -> None:
        super().__init__()
        self.norm, self.qkv, self.mlp, self.first = nn.LayerNorm(c), nn.Linear(c, 3 * c), nn.Linear(c, c), first
        self.reduce = nn.Conv2d(c, c, 4, 4) if reduced else None

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        read = self.norm(x) if self.first else x
        q, k, v = self.qkv(read).chunk(3, 2)
        if self.reduce is not None:
            k = v = self.reduce(read.transpose(1, 2).reshape(n, c, h, w)).flatten(2).transpose(1, 2)
        x = x + self.mlp((q @ k.transpose(1, 2)).softmax(2) @ v)
        return (x if self.first else self.norm(x)).transpose(1, 2).reshape(n, c, h, w)


class Features(nn.Module):
    """Stages one after the other, all of which are given, or only the mean of the last."""

    def __init__(self, *stages: nn.Module, width: int = 0) -> None:
        """``width``: of the last stage, where a classifier reads it."""
        super().__init__()
        self.stem, self.stages = Conv(3, C, 3, 2, act=nn.ReLU), nn.ModuleList(stages)
        self.fc = nn.Linear(width, 5) if width else None

    def forward(self, x: Tensor) -> list[Tensor] | Tensor:
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found if self.fc is None else self.fc(x.mean((2, 3)))


def exported(model: nn.Module, outputs: int) -> onnx.ModelProto:
    file, names = io.BytesIO(), [f"out{place}" for place in range(outputs)]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        image = torch.rand(1, 3, 128, 128)
        model.eval()(image)
        torch.onnx.export(model, (image,), file, opset_version=17, dynamo=False, output_names=names)
    return onnx.load_from_string(file.getvalue())


def roles(model: onnx.ModelProto) -> Mapping[str, list[str]]:
    """What stands for p2 to p5 without names, by the names that the tensors had."""
    bare, new = randomise(model)
    old, tree = {name: given for given, name in new.items()}, tree_of(bare)
    found = {role: [old[name] for name in tree.role(role)] for role in ("p2", "p3", "p4", "p5")}
    return {role: names for role, names in found.items() if names}


def test_maps_that_a_backbone_gives_end_its_stages() -> None:
    model = exported(Features(*(halving(C * 2**i) for i in range(3))), 3)
    assert roles(model) == {"p2": ["out0"], "p3": ["out1"], "p4": ["out2"]}


def test_a_stage_of_a_classifier_ends_where_all_paths_meet() -> None:
    model = exported(Features(*(halving(C * 2**i) for i in range(3)), width=8 * C), 1)
    assert [name for names in roles(model).values() for name in names] == [
        f"/stages.{place}/act/Relu_output_0" for place in range(3)
    ]


def test_attention_of_a_backbone_begins_no_neck() -> None:
    stages = [nn.Sequential(Conv(C, C, 3, 2), Attention(C), nn.Conv2d(C, C, 1)) for _ in range(3)]
    model = exported(Features(*stages), 3)
    assert roles(model) == {"p2": ["out0"], "p3": ["out1"], "p4": ["out2"]}


@pytest.mark.parametrize("width", [0, C], ids=["features", "classifier"])
def test_a_map_within_attention_is_no_stage(width: int) -> None:
    """PVT's keys and values are of a reduced map; the stage itself goes on in tokens."""
    stage = nn.Sequential(nn.Conv2d(C, C, 3, 2, 1), Attention(C, reduced=True), nn.Conv2d(C, C, 1))
    tokens = nn.Sequential(nn.Conv2d(C, C, 3, 2, 1), Attention(C, reduced=True))
    found = roles(exported(Features(stage, tokens, width=width), 1 if width else 2))
    assert set(found) <= {"p2", "p3"}
    assert "/stages.1/stages.1.0/Conv_output_0" not in found.get("p3", [])
    end = "/stages.0/stages.0.2/Conv_output_0" if width else "out0"
    assert found.get("p2", [end]) == [end]


@pytest.mark.parametrize("first", [True, False], ids=["backbone", "encoder"])
def test_only_attention_that_is_normalised_last_is_an_encoder(first: bool) -> None:
    model = exported(Features(nn.Sequential(Conv(C, C, 3, 2), Attention(C, first), Conv(C, C))), 1)
    assert len(tree_of(model).of_type("AIFI")) == (not first)
