"""Make detector.onnx, the model that the examples and `make demo` work on: `python export.py [OUT.onnx]`.

The weights are drawn from a seed, not trained: the file is for trying insertions on, not for detecting anything.
Numbers are drawn and folded so that they come out alike on every machine (uniform draws, float64, measured statistics
rounded to three digits), which makes the file reproducible to the byte with one version of PyTorch.
"""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from detector import Detector
from torch import nn

SEED = 8
SIZE = 320  # pixels: height and width
OPSET = 17


def detector() -> Detector:
    """Return the seeded detector in float32 and evaluation mode, BatchNorm folded."""
    model = Detector().double().eval()
    rng = np.random.default_rng(SEED)
    with torch.no_grad():
        draw_weights(model, rng)
        measure_statistics(model, rng)
        model.fuse()
    return model.float()


def draw_weights(model: nn.Module, rng: np.random.Generator) -> None:
    """Draw convolutions with the variance that keeps SiLU activations at their size, and norms near 1 and 0."""

    def uniform(shape: torch.Size, low: float, high: float) -> torch.Tensor:
        return torch.from_numpy(low + (high - low) * rng.random(tuple(shape)))

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and "dfl" not in name:
            bound = math.sqrt(3 * 2.8 / module.weight[0].numel())  # E[silu(x)^2] = 1 / 2.8 for a normal x
            module.weight.copy_(uniform(module.weight.shape, -bound, bound))
            if module.bias is not None:
                module.bias.copy_(uniform(module.bias.shape, -1.0, 1.0))
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(uniform(module.weight.shape, 0.7, 1.3))
            module.bias.copy_(uniform(module.bias.shape, -0.4, 0.4))


def measure_statistics(model: nn.Module, rng: np.random.Generator) -> None:
    """Set the running statistics to those of seeded images, to three digits: without them maps grow flat with depth."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    coarse = [torch.from_numpy(rng.random((1, 3, size, size))) for size in (5, 20)]
    images = [nn.functional.interpolate(image, size=(SIZE, SIZE), mode="bilinear") for image in coarse]
    images.append(torch.from_numpy(rng.random((1, 3, SIZE, SIZE))))
    for norm in norms:
        norm.momentum = 1.0  # the statistics become those of this one batch
        norm.train()
    model(torch.cat(images))
    for norm in norms:
        norm.eval()
        norm.momentum = 0.1
        for statistic in (norm.running_mean, norm.running_var):
            assert statistic is not None
            statistic.copy_(torch.tensor([float(f"{value:.2e}") for value in statistic.tolist()]))


def export(path: Path) -> None:
    """Write the detector to `path` with the exporter that names nodes after modules."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # this exporter is the older of two
        warnings.filterwarnings("ignore", message="(Converting a tensor|Using len)")  # sizes become constants
        torch.onnx.export(
            detector(),
            (torch.zeros(1, 3, SIZE, SIZE),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["output0"],
        )


if __name__ == "__main__":
    export(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("detector.onnx"))
