"""A package that was written when blocks were imported from graphsurgery.block, by the page of that time."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from graphsurgery import entry_points
from graphsurgery.blocks import registry
from graphsurgery.feature_map import FeatureMap
from graphsurgery.template import Template
from graphsurgery.userblocks import make_block

BLOCK = """
import numpy as np

from graphsurgery.block import SATURATED, Block


class ChannelGate(Block):
    name = "channelgate"
    title = "Channel gate"
    paper = "none: an example"
    reference = "gatepack.module.ChannelGate"
    formula = "y = x * sigmoid(scale * mean over H, W of x + shift)"
    untrained = "halves a signal without a mean"
    aliases = ((r"gamma", "scale"), (r"beta", "shift"))

    def parameters(self, feature):
        return {"scale": (feature.channels,), "shift": (feature.channels,)}

    def initial(self, feature, rng):
        return {"scale": np.ones(feature.channels), "shift": np.zeros(feature.channels)}

    def identity(self, feature):
        return {"scale": np.zeros(feature.channels), "shift": np.full(feature.channels, SATURATED)}

    def emit(self, t, lowering):
        shape = (1, t.feature.channels, 1, 1)
        z = t.mul(t.weight("scale", shape), t.mean_hw(t.x))
        return t.mul(t.x, t.sigmoid(t.add(z, t.weight("shift", shape))))

    def module(self, feature):
        from .module import ChannelGate as Module

        return Module(feature.channels)
"""
MODULE = """
import torch
from torch import nn

class ChannelGate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.scale.view(1, -1, 1, 1) * mean + self.shift.view(1, -1, 1, 1))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The package of the page, installed as far as the registry can see."""
    (tmp_path / "gatepack").mkdir()
    for name, text in {"__init__": "", "block": BLOCK, "module": MODULE}.items():
        (tmp_path / "gatepack" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("graphsurgery.block", "graphsurgery.featuremap"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    real = entry_points.entry_points
    found = [*real(group=registry.ENTRY_POINTS), EntryPoint("gatepack", "gatepack.block", registry.ENTRY_POINTS)]
    monkeypatch.setattr(
        entry_points, "entry_points", lambda group: found if group == registry.ENTRY_POINTS else real(group=group)
    )
    registry.forget()
    yield
    registry.forget()


@pytest.mark.usefixtures("package")
def test_it_works_as_it_did() -> None:
    with pytest.warns(DeprecationWarning, match=r"graphsurgery\.block is graphsurgery\.blocks now"):
        block = make_block("channelgate")
    feature = FeatureMap(4, 5, 6, batch=1)
    t = Template(feature, opset=17, weights=block.initial(feature, np.random.default_rng(0)))
    assert [node.op_type for node in t.export(block.emit(t, "default"), ir_version=8).nodes] == [
        *("ReduceMean", "Mul", "Add", "Sigmoid", "Mul")
    ]
    assert block.official_key("gamma") == "scale"
    assert block.identity(feature)["shift"].min() == 40
    assert tuple(block.module(feature).state_dict()) == ("scale", "shift")


def test_every_name_that_there_was_is_there() -> None:
    with pytest.warns(DeprecationWarning, match="now"):
        former = importlib.reload(importlib.import_module("graphsurgery.block"))
    with pytest.warns(DeprecationWarning, match="now"):
        assert importlib.reload(importlib.import_module("graphsurgery.featuremap")).FeatureMap is FeatureMap
    assert former.make_block("simam").name == "simam"
    assert former.bn_values("bn", 2, 0.5)["bn.weight"].tolist() == [0.5, 0.5]
    shapes = {"fc.weight": (3, 4), "fc.bias": (3,)}
    values = former.layer_values(np.random.default_rng(0), shapes)
    assert {key: array.shape for key, array in values.items()} == shapes
    assert np.abs(values["fc.bias"]).max() <= 0.5
