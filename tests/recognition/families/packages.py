"""Detectors of installed packages, built from their configurations with random weights, without what follows the head.

``marks`` maps a role to the path of the module that gives it; ``name[i]`` is one of several that it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.recognition.families.parts import FPN, Marks, flat


class Packaged(NamedTuple):
    """A model, and where its roles are."""

    model: nn.Module
    marks: Mapping[str, str]


class Flat(nn.Module):
    """torchvision's detectors from the image to the raw outputs of the head."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(x)
        return tuple(self.head(list(maps.values())).values())


def _torchvision(name: str, marks: Mapping[str, str]) -> Callable[[], Packaged]:
    def build() -> Packaged:
        from torchvision.models import detection

        model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=8)
        return Packaged(Flat(model), marks)

    return build


class Proposals(nn.Module):
    """torchvision's Faster R-CNN from the image to the raw outputs of its region proposal head: what follows needs the
    operators of torchvision's compiled library.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.rpn = model.backbone, model.rpn.head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scores, boxes = self.rpn(list(self.backbone(x).values()))
        return *scores, *boxes


def _faster_rcnn() -> Packaged:
    from torchvision.models import detection

    model = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=8)
    stages = {f"p{i + 1}": f"backbone.body.layer{i}" for i in (1, 2, 3, 4)}
    return Packaged(Proposals(model), stages | {f"n{i + 2}": f"backbone.fpn[{i}]" for i in range(5)})


_RESNET_FPN = {
    **{f"p{i + 1}": f"backbone.body.layer{i}" for i in (2, 3, 4)},
    **{f"n{i + 3}": f"backbone.fpn.layer_blocks.{i}" for i in range(3)},
    **{f"n{i}": f"backbone.fpn.extra_blocks.p{i}" for i in (6, 7)},
}


class TimmFPN(nn.Module):
    """A backbone of timm under an FPN, with two towers that all levels share."""

    def __init__(self, name: str, width: int = 16, **settings: Any) -> None:
        super().__init__()
        import timm

        self.backbone = timm.create_model(name, pretrained=False, features_only=True, **settings)
        self.neck = FPN(self.backbone.feature_info.channels()[-3:], width)
        self.tower = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.score, self.box = nn.Conv2d(width, 20, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.marks.of("n", self.neck(self.marks.of("p", self.backbone(x)[-3:])))
        maps = [self.tower(x) for x in maps]
        return torch.cat([flat(self.score(x), 20) for x in maps], 1), torch.cat([flat(self.box(x), 4) for x in maps], 1)


def _timm(name: str, **settings: Any) -> Callable[[], Packaged]:
    return lambda: Packaged(TimmFPN(name, **settings), {})


class Answers(nn.Module):
    """A detector of transformers that gives its logits and boxes only."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.inner(x)
        return found.logits, found.pred_boxes


def _rtdetr(version: str) -> Callable[[], Packaged]:
    def build() -> Packaged:
        import transformers as hf

        backbone = hf.RTDetrResNetConfig(
            layer_type="basic",
            depths=[2, 2, 2, 2],
            hidden_sizes=[16, 32, 48, 64],
            embedding_size=16,
            out_features=["stage2", "stage3", "stage4"],
        )
        sizes: dict[str, Any] = {
            "encoder_in_channels": [32, 48, 64],
            "encoder_hidden_dim": 32,
            "d_model": 32,
            "decoder_layers": 2,
            "num_queries": 20,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "decoder_in_channels": [32, 32, 32],
            "hidden_expansion": 0.5,
            "anchor_image_size": None,
        }
        kind = {"1": "RTDetr", "2": "RTDetrV2"}[version]
        config = getattr(hf, f"{kind}Config")(backbone_config=backbone, freeze_backbone_batch_norms=False, **sizes)
        stages = {f"p{i + 2}": f"inner.model.backbone.model.encoder.stages.{i}" for i in (1, 2, 3)}
        return Packaged(Answers(getattr(hf, f"{kind}ForObjectDetection")(config)), stages)

    return build


def _dfine() -> Packaged:
    import transformers as hf

    config = hf.DFineConfig(decoder_layers=2, num_queries=20, anchor_image_size=None)
    stages = {f"p{i + 2}": f"inner.model.backbone.model.encoder.stages.{i}" for i in (1, 2, 3)}
    return Packaged(Answers(hf.DFineForObjectDetection(config)), stages)


def _yolos() -> Packaged:
    """A transformer on tokens alone: none of its tensors is a map of a stage."""
    import transformers as hf

    config = hf.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=[128, 128],
        num_detection_tokens=10,
        use_mid_position_embeddings=False,
    )
    return Packaged(Answers(hf.YolosForObjectDetection(config)), {})


_SMALL_DECODER: dict[str, Any] = {
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_ffn_dim": 64,
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 4,
    "num_queries": 10,
    "group_detr": 1,
}


def _rfdetr() -> Packaged:
    """The backbone is at one stride; the projector's C2f gives the decoder its map."""
    import transformers as hf

    backbone = hf.RfDetrDinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=128,
        patch_size=16,
        num_windows=2,
        out_indices=[2, 4],
    )
    config = hf.RfDetrConfig(backbone_config=backbone, **_SMALL_DECODER)
    model = Answers(hf.RfDetrForObjectDetection(config))
    for module in model.modules():
        if hasattr(module, "interpolate_pos_encoding"):  # as its own exporter does: the positions are a constant
            module.interpolate_pos_encoding = lambda *_, of=module: of.position_embeddings
    return Packaged(model, {"n4": "inner.model.backbone.projector", "p4": "inner.model.backbone.backbone[1]"})


def _lwdetr() -> Packaged:
    import transformers as hf

    backbone = hf.LwDetrViTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=128,
        patch_size=16,
        window_block_indices=[0, 2],
        out_indices=[1, 3],
        num_windows=4,
    )
    config = hf.LwDetrConfig(
        projector_scale_factors=[1.0],
        backbone_config=backbone,
        **_SMALL_DECODER,
    )
    marks = {"n4": "inner.model.backbone.projector[0]", "p4": "inner.model.backbone.backbone[1]"}
    return Packaged(Answers(hf.LwDetrForObjectDetection(config)), marks)


def _detr(kind: str) -> Callable[[], Packaged]:
    def build() -> Packaged:
        import transformers as hf

        backbone = hf.ResNetConfig(
            embedding_size=16,
            hidden_sizes=[32, 64, 96, 128],
            depths=[1, 1, 1, 1],
            out_features=["stage4"],
        )
        sizes: dict[str, Any] = {
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "num_queries": 10,
        }
        config = getattr(hf, f"{kind}Config")(use_timm_backbone=False, backbone=None, backbone_config=backbone, **sizes)
        model = Answers(getattr(hf, f"{kind}ForObjectDetection")(config))
        path = next(
            n for n, m in model.named_modules() if n.endswith("encoder.stages") and isinstance(m, nn.ModuleList)
        )
        return Packaged(model, {f"p{i + 2}": f"{path}.{i}" for i in range(4)})

    return build


BUILDERS: dict[str, Callable[[], Packaged]] = {
    "tv-ssd300-vgg16": _torchvision("ssd300_vgg16", {"p4": "backbone.extra.0"}),
    "tv-ssdlite320-mobilenet": _torchvision(
        "ssdlite320_mobilenet_v3_large", {"p4": "backbone.features.0", "p5": "backbone.features.1"}
    ),
    "tv-retinanet-r50": _torchvision("retinanet_resnet50_fpn", _RESNET_FPN),
    "tv-fcos-r50": _torchvision("fcos_resnet50_fpn", _RESNET_FPN),
    "tv-fasterrcnn-r50": _faster_rcnn,
    "timm-resnet18-fpn": _timm("resnet18"),
    "timm-mobilenetv3-fpn": _timm("mobilenetv3_small_100"),
    "timm-mobilenetv2-fpn": _timm("mobilenetv2_050"),
    "timm-efficientnet-fpn": _timm("efficientnet_b0"),
    "timm-convnext-fpn": _timm("convnext_atto"),
    "timm-regnet-fpn": _timm("regnetx_002"),
    "timm-ghostnet-fpn": _timm("ghostnet_050"),
    "timm-repvgg-fpn": _timm("repvgg_a0"),
    "timm-hgnetv2-fpn": _timm("hgnetv2_b0"),
    "timm-darknet53-fpn": _timm("darknet53"),
    "timm-densenet-fpn": _timm("densenet121"),
    "hf-rtdetr": _rtdetr("1"),
    "hf-rtdetrv2": _rtdetr("2"),
    "hf-dfine": _dfine,
    "hf-detr": _detr("Detr"),
    "hf-conditional-detr": _detr("ConditionalDetr"),
    "hf-yolos": _yolos,
    "hf-rfdetr": _rfdetr,
    "hf-lwdetr": _lwdetr,
}
