"""Networks with attention in them, exported as their users do.

usage: python attention_networks.py NAME OUT.onnx

Weights are seeded, and norms have statistics of their own. In the detectors "with blocks" the blocks stand in the form
that they are published in (published.py), each behind one layer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from benchmarks.lib.blocks import CONFIGURATIONS, Size, module
from benchmarks.lib.published import published
from tests.exports import make, make_zoo

PIXELS = 640
_BLOCKS = ("simam", "se", "eca", "cbam[yolo-port]", "coordatt", "ema", "triplet", "gc")
LAYERS = {"yolo11n": (2, 4, 6, 8, 13, 16, 19, 22), "rtdetr-l": (1, 3, 7, 9, 16, 21, 24, 27)}
"""detector -> the layers that the blocks are put behind, in their order"""
WITH_BLOCKS = {f"{name} with blocks": name for name in LAYERS}
EXPORTERS = {"rtdetr-l": "dynamo"}
"""where TorchScript's does not know the size of every map, which adaptive pooling needs"""
CLASSIFIERS = {"seresnet50": 224}
"""of timm -> pixels"""


def detector_with_blocks(name: str) -> Any:
    """Ultralytics' model with the blocks behind its layers."""
    import torch
    from torch import nn

    model = make.build(name)
    sizes: dict[int, Size] = {}
    hooks = [
        model.model[layer].register_forward_hook(
            lambda *given, layer=layer: sizes.update({layer: tuple(given[-1].shape[1:])})
        )
        for layer in LAYERS[name]
    ]
    with torch.no_grad():
        model(torch.zeros(1, 3, PIXELS, PIXELS))
    for hook in hooks:
        hook.remove()
    for layer, block in zip(LAYERS[name], _BLOCKS, strict=True):
        before = model.model[layer]
        both = nn.Sequential(before, published(block, module(CONFIGURATIONS.index((block, {})), sizes[layer])).eval())
        for key in ("i", "f", "type", "np"):  # by which Ultralytics runs a layer
            setattr(both, key, getattr(before, key))
        model.model[layer] = both.eval()
    return model


def main(name: str, out: Path) -> None:
    import torch

    with tempfile.TemporaryDirectory() as settings:
        make.isolate(settings)
        make_zoo.declare_operators()
        torch.manual_seed(make.SEED)
        if name in WITH_BLOCKS:
            detector = WITH_BLOCKS[name]
            exporter = make.exporter(EXPORTERS.get(detector, "torchscript"), out.resolve())
            exporter(model=detector_with_blocks(detector))
            return
        model = make_zoo.timm_model(name)().eval()
        make.randomise_norms(model)
        pixels = CLASSIFIERS[name]
        torch.onnx.export(model, (torch.zeros(1, 3, pixels, pixels),), str(out), dynamo=False, opset_version=17)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
