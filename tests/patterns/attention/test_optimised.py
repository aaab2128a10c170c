"""Every block in a model that went through onnxslim or onnxsim afterwards: it computes what it did, and `verify` finds
it right, or says which of its nodes the tool has merged.

With weights as training leaves them: what a fresh block multiplies by 1 the tools take out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import graphsurgery as gsx
from graphsurgery.feature_map import FeatureMap
from graphsurgery.userblocks import make_block
from tests import models
from tests.optimisers import optimised
from tests.patterns.attention.readers import OPSET, OPSETS, SETTINGS, SIZE, TARGETS, variants

QUICK = ("shsa[unit]", "lka[unit]")


def trained(block: str, settings: dict[str, object], path: Path) -> dict[str, str]:
    """Weights with no parameter at its first value, as the argument of `insert`; nothing for a block that has none."""
    rng = np.random.default_rng(5)
    arrays = make_block(block, settings).initial(FeatureMap(*SIZE, batch=1), rng)
    noisy = {
        key: rng.uniform(0.5, 2.0, values.shape)
        if key.endswith("running_var")
        else values + rng.normal(0, 0.2, values.shape) / max(np.prod(values.shape[1:]), 1) ** 0.5
        for key, values in arrays.items()
    }
    torch.save({key: torch.from_numpy(np.asarray(values, np.float32)) for key, values in noisy.items()}, path)
    return {"weights": str(path)} if arrays else {}


@pytest.mark.filterwarnings("ignore:.*the keys in w.pt are also those of")
@pytest.mark.parametrize("tool", ["onnxslim", pytest.param("onnxsim", marks=pytest.mark.long)])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "block", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.long) for each in variants()]
)
def test_a_block_after_an_optimiser(block: str, target: str, tool: str, tmp_path: Path) -> None:
    settings = SETTINGS.get(block.partition("[")[0], {})
    model = models.chain("Relu", "Neg", shape=(1, *SIZE), opset=OPSETS.get(block, OPSET))
    weights = trained(block, settings, tmp_path / "w.pt")
    edited = gsx.insert(model, block, after="tensor:t0", target=target, settings=settings, **weights)
    after = optimised(tool, edited.save(tmp_path / "made.onnx"))
    (before,), (now,) = models.run(edited.to_bytes()), models.run(after.SerializeToString())
    np.testing.assert_allclose(now, before, rtol=0, atol=1e-4 * max(1.0, float(np.abs(before).max())))
    report = gsx.verify(after, providers="cpu", seeds=1, ignore_rest=True)
    left = {node.name for node in after.graph.node}
    merged = [node.name for node in edited.proto().graph.node if node.name not in left]
    said = [line for line in report.lines() if "the model no longer has" in line]
    assert report.passed != bool(merged), "\n".join(report.lines())
    assert bool(said) == bool(merged)
