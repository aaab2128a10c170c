"""Triplet Attention: planes instead of turned maps, its argument trap, and its two sets of names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graphsurgery.userblocks import make_block
from tests.patterns.attention.carried import assert_is, inserted
from tests.patterns.attention.evaluators import Runtime
from tests.patterns.attention.fitting import fit
from tests.patterns.attention.harness import build, feature_map, random_weights

POOL = ["ReduceMax", "ReduceMean", "Concat"]


class Turned(nn.Module):
    """The published order of things: turn the map, gate it, turn it back; then the mean of the three maps."""

    def __init__(self, spatial: bool = True) -> None:
        super().__init__()
        self.gates = nn.ModuleDict({name: nn.Module() for name in (["cw", "hc", "hw"] if spatial else ["cw", "hc"])})
        for gate in self.gates.values():
            gate.conv = nn.Module()
            gate.conv.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
            gate.conv.bn = nn.BatchNorm2d(1)
            nn.init.uniform_(gate.conv.bn.running_mean, -0.5, 0.5)
            nn.init.uniform_(gate.conv.bn.running_var, 0.3, 0.9)

    def gated(self, x: torch.Tensor, name: str) -> torch.Tensor:
        layers = self.gates[name].conv
        pooled = torch.stack([x.max(1).values, x.mean(1)], 1)
        return x * torch.sigmoid(layers.bn(layers.conv(pooled)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [
            self.gated(x.permute(0, 2, 1, 3), "cw").permute(0, 2, 1, 3),
            self.gated(x.permute(0, 3, 2, 1), "hc").permute(0, 3, 2, 1),
        ]
        if "hw" in self.gates:
            maps.append(self.gated(x, "hw"))
        return sum(maps[1:], maps[0]) / len(maps)


def state(module: Turned) -> dict[str, torch.Tensor]:
    return {key.removeprefix("gates."): value for key, value in module.state_dict().items()}


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("channels", [5, 24])
def test_the_published_order(channels: int, spatial: bool) -> None:
    module = Turned(spatial)
    built = inserted("triplet", {}, state(module), channels)
    assert built.block.values["spatial"] is spatial
    assert_is(built, module)


def test_names_of_the_older_copy() -> None:
    given = random_weights(make_block("triplet"), feature_map())
    old = {"cw.conv": "ChannelGateH.spatial", "hc.conv": "ChannelGateW.spatial", "hw.conv": "SpatialGate.spatial"}
    renamed = {old[key[:7]] + key[7:]: values for key, values in given.items()}
    block, fitted = fit(make_block("triplet"), feature_map(), renamed)
    assert block.values["spatial"] is True
    assert {key: values.tolist() for key, values in fitted.items()} == {k: v.tolist() for k, v in given.items()}


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_only_planes_are_turned(opset: int) -> None:
    for height, batch in ((13, 1), (None, None)):
        operators = build("triplet", feature=feature_map(12, height, batch=batch), opset=opset).operators
        assert operators == [
            *POOL, "Transpose", *POOL, "Transpose", "Conv", "Sigmoid", "Mul", "Reshape", "Conv", "Sigmoid", "Mul",
            "Transpose", "Add", *POOL, "Conv", "Sigmoid", "Mul", "Add", "Mul",
        ]  # fmt: skip


def test_the_order_of_channels_counts() -> None:
    """The window slides over them: a block between two others that were trained apart is not the same."""
    built = build("triplet", feature=feature_map(12))
    x = np.random.default_rng(1).standard_normal((1, 12, 13, 21)).astype(np.float32)
    run, order = Runtime(built.model), np.random.default_rng(2).permutation(12)
    assert np.abs(run(x)[:, order] - run(x[:, order])).max() > 1e-2


def test_two_branches_are_warned_of() -> None:
    (warning,) = make_block("triplet", {"spatial": False}).warnings(feature_map())
    assert "means no_spatial by mistake" in warning
    assert make_block("triplet").warnings(feature_map()) == []
