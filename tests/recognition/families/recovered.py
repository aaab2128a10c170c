"""The models by whose blocks recovery is measured: of timm, torchvision and transformers, and rebuilt here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import onnx
from torch import Tensor, nn

from tests.recognition.families import others
from tests.recognition.families.backbones import Caffe2ResNet, HGNetV2, LinearGate, MobileNetV3, rtmdet_nano
from tests.recognition.families.packages import BUILDERS, Answers


def _unchanged(model: onnx.ModelProto) -> None:
    """What torch exports is the file."""


class Family(NamedTuple):
    """How a model is made."""

    build: Callable[[], nn.Module]
    size: int = 128
    """pixels"""
    classes: Mapping[str, str] = {}
    """classes of modules -> the types of their blocks, where this model's are others than truth.py says"""
    change: Callable[[onnx.ModelProto], None] = _unchanged
    """what another exporter writes otherwise"""


def _with_sums(model: onnx.ModelProto) -> None:
    """Caffe2's exporter writes Sum for what others write Add."""
    for node in model.graph.node:
        if node.op_type == "Add":
            node.op_type = "Sum"


def _timm(name: str, *, fused: bool = False, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm
        from timm.utils import reparameterize_model

        model = timm.create_model(name, pretrained=False, **settings)
        return reparameterize_model(model.eval()) if fused else model

    return build


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from torchvision import models

        return getattr(models, name)(weights=None)

    return build


def _dfine_with_affine() -> nn.Module:
    """D-FINE-S and DEIM-S: PP-HGNetV2-B0 with learnable affine blocks."""
    import transformers as hf

    backbone = hf.HGNetV2Config(
        stem_channels=[3, 16, 16],
        hidden_sizes=[32, 64, 96, 128],
        stage_in_channels=[16, 32, 64, 96],
        stage_mid_channels=[16, 16, 32, 32],
        stage_out_channels=[32, 64, 96, 128],
        stage_num_blocks=[1, 1, 2, 1],
        stage_numb_of_layers=[3, 3, 3, 3],
        use_learnable_affine_block=True,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = hf.DFineConfig(
        backbone_config=backbone,
        encoder_in_channels=[64, 96, 128],
        encoder_hidden_dim=32,
        encoder_ffn_dim=64,
        encoder_attention_heads=4,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        decoder_layers=2,
        num_queries=20,
        anchor_image_size=None,
    )
    return Answers(hf.DFineForObjectDetection(config))


def _rfdetr() -> nn.Module:
    """RF-DETR: a windowed ViT of one scale, a C2f on its maps, queries that sample them."""
    import transformers as hf
    from transformers.models.rf_detr import modeling_rf_detr

    class Embeddings(modeling_rf_detr.RfDetrDinov2Embeddings):  # type: ignore[misc]
        """As RF-DETR's own export has them: for one size of image."""

        def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
            return self.position_embeddings

    backbone = hf.RfDetrDinov2Config(
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=3,
        mlp_ratio=2,
        image_size=128,
        patch_size=16,
        num_windows=2,
        out_features=["stage2", "stage4"],
    )
    config = hf.RfDetrConfig(
        backbone_config=backbone,
        d_model=32,
        decoder_layers=2,
        num_queries=20,
        decoder_self_attention_heads=4,
        decoder_cross_attention_heads=4,
        decoder_ffn_dim=64,
        decoder_n_points=2,
    )
    model = hf.RfDetrForObjectDetection(config)
    for module in model.modules():
        if isinstance(module, modeling_rf_detr.RfDetrDinov2Embeddings):
            module.__class__ = Embeddings
    return Answers(model)


def _detector(name: str) -> Callable[[], nn.Module]:
    return lambda: BUILDERS[name]().model


_FUSED = {"MobileOneBlock": "Conv"}
MODELS: dict[str, Family] = {
    "mobilenet-v3-gate-first": Family(lambda: MobileNetV3(others.Gate)),
    "mobilenet-v3-linear-gate": Family(lambda: MobileNetV3(LinearGate)),
    "tv-mobilenet-v3-small": Family(_torchvision("mobilenet_v3_small")),
    "timm-mobilenetv3": Family(_timm("mobilenetv3_small_050")),
    "timm-mobilenetv4": Family(_timm("mobilenetv4_conv_small_035")),
    "timm-efficientnet": Family(_timm("efficientnet_b0")),
    "timm-efficientnet-lite": Family(_timm("efficientnet_lite0")),
    "timm-mnasnet": Family(_timm("mnasnet_small")),
    "timm-fastvit": Family(_timm("fastvit_t8")),
    "timm-fastvit-fused": Family(_timm("fastvit_t8", fused=True), classes=_FUSED),
    "timm-fastvit-sa-fused": Family(_timm("fastvit_sa12", fused=True), classes=_FUSED),
    "timm-ecaresnet": Family(_timm("ecaresnet26t")),
    "timm-ecaresnet-d": Family(_timm("ecaresnet50d")),
    "timm-gcresnet": Family(_timm("gcresnet33ts")),
    "timm-gcresnext": Family(_timm("gcresnext26ts")),
    "timm-seresnet": Family(_timm("seresnet18")),
    "timm-regnety": Family(_timm("regnety_002")),
    "timm-ghostnetv2": Family(_timm("ghostnetv2_100")),
    "hgnetv2-affine": Family(HGNetV2),
    "timm-hgnetv2-affine": Family(_timm("hgnetv2_b0")),
    "timm-hgnetv2": Family(_timm("hgnetv2_b4")),
    "timm-cspnext": Family(_timm("cspnext_tiny")),
    "caffe2-resnet": Family(Caffe2ResNet, classes={"Caffe2Bottleneck": "ResNetBottleneck"}, change=_with_sums),
    "rtmdet": Family(others.RTMDet),
    "rtmdet-nano": Family(rtmdet_nano, classes={"SeparableCSPNeXtBlock": "CSPNeXtBlock"}),
    "ppocr-det": Family(others.PPOCRDet),
    "nanodet-plus": Family(others.NanoDetPlus),
    "hf-dfine": Family(_detector("hf-dfine"), 256),
    "hf-dfine-affine": Family(_dfine_with_affine, 256),
    "hf-detr": Family(_detector("hf-detr")),
    "hf-rfdetr": Family(_rfdetr),
}
