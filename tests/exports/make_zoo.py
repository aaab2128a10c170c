"""Models that are not Ultralytics': `python make_zoo.py NAME VARIANT OUT.onnx`, with the list of modules beside it.

Those of transformers, torchvision and timm are built from their configurations, nothing is downloaded; the others are
in zoo/. Weights are seeded and norms are randomised as make.py does it. The exporters are called as their users do.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.exports import make, modulelist

SIZES = {"rtdetr-r18": 320, "yolox-tiny": 320, "yolox-nano": 320, "ppyoloe": 320, "rtmdet": 320, "yolov5-anchors": 320}
SIZE = 224  # pixels, for all others
OUTPUTS = {
    "rtdetr-r18": ["logits", "pred_boxes"],
    "mobilenetv3-features": ["stride2", "stride4", "stride8", "stride16", "stride32"],
}
OPSET = 18


def rtdetr() -> Any:
    """Return transformers' RT-DETR on ResNet-18-vd, with three decoder layers and 100 queries."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    class Model(RTDetrForObjectDetection):  # type: ignore[misc]
        def forward(self, pixel_values: Any) -> tuple[Any, Any]:
            found = super().forward(pixel_values)
            return found.logits, found.pred_boxes

    backbone = RTDetrResNetConfig(
        layer_type="basic",
        depths=[2, 2, 2, 2],
        hidden_sizes=[64, 128, 256, 512],
        embedding_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )
    return Model(
        RTDetrConfig(
            backbone_config=backbone,
            encoder_in_channels=[128, 256, 512],
            hidden_expansion=0.5,
            decoder_layers=3,
            num_queries=100,
            freeze_backbone_batch_norms=False,
        )
    )


def freeze(model: Any) -> Any:
    """Freeze the norms of transformers' backbone as its default configuration does: they become Mul and Add."""
    from transformers.models.rt_detr import modeling_rt_detr

    modeling_rt_detr.replace_batch_norm(model.model.backbone)
    return model


def zoo(module: str, function: str, *arguments: Any) -> Callable[[], Any]:
    """Return a function that builds one of the models in zoo/."""

    def build() -> Any:
        import importlib

        return getattr(importlib.import_module(f"tests.exports.zoo.{module}"), function)(*arguments)

    return build


def torchvision_model(name: str) -> Callable[[], Any]:
    """Return a function that builds one of torchvision's classifiers."""

    def build() -> Any:
        from torchvision import models

        return getattr(models, name)(weights=None)

    return build


def timm_model(name: str, **settings: Any) -> Callable[[], Any]:
    """Return a function that builds one of timm's models."""

    def build() -> Any:
        import timm

        return timm.create_model(name, pretrained=False, **settings)

    return build


MODELS: dict[str, Callable[[], Any]] = {
    "rtdetr-r18": rtdetr,
    "yolox-tiny": zoo("yolox", "yolox", 24, False),
    "yolox-nano": zoo("yolox", "yolox", 16, True),
    "ppyoloe": zoo("ppyoloe", "ppyoloe"),
    "rtmdet": zoo("rtmdet", "rtmdet"),
    "yolov5-anchors": zoo("yolov5", "yolov5"),
    "mobilenet_v2": torchvision_model("mobilenet_v2"),
    "mobilenet_v3_large": torchvision_model("mobilenet_v3_large"),
    "resnet18": torchvision_model("resnet18"),
    "resnet50": torchvision_model("resnet50"),
    "efficientnet_b0": timm_model("efficientnet_b0"),
    "mobilenetv3-features": timm_model("mobilenetv3_small_100", features_only=True),
}


def declare_operators() -> None:
    """Declare what torchvision's Python part expects of its compiled library, where that does not load."""
    import torch

    make.declare_torchvision_operators()
    if not hasattr(torch.ops.torchvision, "qnms"):
        torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def main(name: str, variant: str, out: Path) -> None:
    """Write the export to `out` and the modules of what was exported beside it."""
    import onnx
    import torch

    declare_operators()
    torch.manual_seed(make.SEED)
    model = MODELS[name]().eval()
    make.randomise_norms(model)
    if name == "rtdetr-r18":
        model = freeze(model)
    size = SIZES.get(name, SIZE)
    modulelist.write(model, size, out.parent)
    image = torch.rand(1, 3, size, size)
    names = {"input_names": ["images"], "output_names": OUTPUTS.get(name, ["output0"])}
    if variant == "dynamo":
        program = torch.onnx.export(model, (image,), dynamo=True, verbose=False, **names)
        program.save(str(out), external_data=False)
    else:
        torch.onnx.export(model, (image,), str(out), dynamo=False, opset_version=OPSET, **names)
    if variant == "simplified":
        import onnxslim

        onnx.save(onnxslim.slim(onnx.load(out)), out)
    onnx.checker.check_model(str(out))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as settings:
        make.isolate(settings)
        main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve())
