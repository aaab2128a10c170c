"""Multiply-accumulates of exported models, held against those that PyTorch counts while the module runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from graphsurgery.graph.work import Work
from graphsurgery.modelfile.model import ModelFile
from tests.exports import export, flops, variants

MODELS = (
    *("yolov8n", "yolo11n", "rtdetr-l", "yolov5n", "yolo12n"),
    *("rtdetr-r18", "yolox-tiny", "yolox-nano", "rtmdet", "yolov5-anchors"),
    *("resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0"),
)
OTHERWISE = ("ort-extended",)
"""variants of which some of what is multiplied is not counted: onnxruntime's own operators"""
SHARE = 0.01
"""that an exporter may add or take away: products of constants are computed ahead, say"""


MERGED = {("rtdetr-l", "simplified"): 5 * 8400 * 256 * 256}
"""what a simplifier leaves out: the layers of an untrained decoder are copies, and what is equal is computed once"""


class Convolutions(nn.Module):
    """Grouped, dilated, transposed and of one axis; a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 24, (1, 5), groups=4, dilation=2),
            nn.ConvTranspose2d(24, 6, 2, stride=2, groups=2),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(2),
            nn.Conv1d(6, 8, 3, padding=1),
            nn.Flatten(),
            nn.Linear(128, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Tokens(nn.Module):
    """An encoder layer, and products of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.layer(self.embed(x).flatten(2).transpose(1, 2))
        return torch.einsum("bnc,bmc->bnm", tokens, tokens) @ tokens


@pytest.mark.parametrize("kind", [Convolutions, Tokens])
@pytest.mark.parametrize("batch", [1, 2])
def test_small_modules(kind: type[nn.Module], batch: int, tmp_path: Path) -> None:
    module, image, path = kind().eval(), torch.rand(batch, 3, 32, 40), tmp_path / "small.onnx"
    torch.onnx.export(module, (image,), str(path), dynamo=False, opset_version=17)
    assert Work.of(ModelFile.load(path)).macs() == flops.counted(module, image)


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_real_models(name: str) -> None:
    script = Path(flops.__file__)
    done = subprocess.run([sys.executable, str(script), name], capture_output=True, text=True, check=True)
    expected = json.loads(done.stdout.splitlines()[-1])[name]
    for variant in ("torchscript", "simplified", "dynamo"):
        found = Work.of(ModelFile.load(export(name, variant))).macs()
        assert found is not None, variant
        print(f"{name:20}{variant:12}{found:>16,}  PyTorch {expected:>16,}  {found / expected - 1:+.4%}")
        found += MERGED.get((name, variant), 0)
        assert abs(found - expected) <= SHARE * expected, variant


@pytest.mark.long
@pytest.mark.parametrize("name", ["yolov8n", "rtdetr-r18"])
def test_the_same_model_takes_the_same_in_every_form(name: str) -> None:
    """As far as its sizes are known; what is quantised multiplies as often."""
    plain = Work.of(ModelFile.load(export(name, "simplified"))).macs()
    for variant in variants(name):
        if variant != "dynamic" and variant not in OTHERWISE:
            found = Work.of(ModelFile.load(export(name, variant))).macs()
            assert found is not None, variant
            assert plain is not None
            assert abs(found - plain) <= SHARE * plain, variant
