"""Classifiers with attention in them and without: `python make_classifiers.py NAME VARIANT OUT.onnx`, with the list of
modules beside OUT.onnx.

torchvision's and timm's, built from their configurations, nothing is downloaded; tv- and timm- begin the names of what
both have. Everything is done as make_zoo.py does it, and no parameter is left at 0 or 1, as training leaves none there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.exports import make, make_zoo
from tests.exports.make_zoo import timm_model, torchvision_model


def resnet(attention: str) -> Callable[[], Any]:
    """Return a function that builds timm's ResNet-18 with one of timm's gates in each block."""
    return timm_model("resnet18", block_args={"attn_layer": attention})


def vgg() -> Any:
    """Return torchvision's VGG-11 without its classifier, which is nine tenths of the file."""
    return torchvision_model("vgg11_bn")().features


def googlenet() -> Any:
    """Return torchvision's GoogLeNet as it is used after training."""
    from torchvision import models

    return models.googlenet(weights=None, aux_logits=False, init_weights=False)


def swin() -> Any:
    """Return a small one of timm's Swin Transformers, which takes images of its own size alone."""
    from torch import nn

    def resized(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        size = (make_zoo.SIZE, make_zoo.SIZE)
        return (given[0] if given[0].shape[2:] == size else nn.functional.interpolate(given[0], size),)

    model = timm_model("swin_tiny_patch4_window7_224", depths=(2, 2), embed_dim=48, num_heads=(2, 4))()
    model.register_forward_pre_hook(resized)
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "tv-mobilenet_v3_small": torchvision_model("mobilenet_v3_small"),
    "tv-efficientnet_b0": torchvision_model("efficientnet_b0"),
    "tv-regnet_y_400mf": torchvision_model("regnet_y_400mf"),
    "timm-mobilenetv3_small_050": timm_model("mobilenetv3_small_050"),
    "timm-efficientnet_b0": timm_model("efficientnet_b0"),
    "timm-regnety_002": timm_model("regnety_002"),
    "seresnet18": timm_model("seresnet18"),
    "ecaresnet26t": timm_model("ecaresnet26t"),
    "gcresnext26ts": timm_model("gcresnext26ts"),
    "skresnet18": timm_model("skresnet18"),
    "cbam-resnet18": resnet("cbam"),
    "coord-resnet18": resnet("coord"),
    "gc-resnet18": resnet("gc"),
    "ese_vovnet19b_dw": timm_model("ese_vovnet19b_dw"),
    "swin": swin,
    "vgg11_bn": vgg,
    "densenet121": torchvision_model("densenet121"),
    "shufflenet_v2": torchvision_model("shufflenet_v2_x0_5"),
    "squeezenet": torchvision_model("squeezenet1_1"),
    "mnasnet": torchvision_model("mnasnet0_5"),
    "googlenet": googlenet,
    "convnext": timm_model("convnext_atto"),
    "repvgg": timm_model("repvgg_a0"),
    "starnet": timm_model("starnet_s050"),
    "poolformer": timm_model("poolformer_s12"),
}


def trained(build: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that builds a model whose biases, scales and zeroed weights are what training could leave."""

    def builder() -> Any:
        import torch

        model = build()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim < 2:
                    parameter.add_(0.1 * torch.randn_like(parameter))
                elif not parameter.any():
                    parameter.normal_(0.0, 0.1)
        return model

    return builder


if __name__ == "__main__":
    make_zoo.MODELS.update({name: trained(build) for name, build in MODELS.items()})
    with tempfile.TemporaryDirectory() as settings:
        make.isolate(settings)
        make_zoo.main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve())
