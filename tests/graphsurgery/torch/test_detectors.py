"""attach on the networks of Ultralytics, torchvision, transformers and timm: built here, with random weights."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from graphsurgery import torch as gt
from graphsurgery.errors import RequestError
from tests.exports.make import declare_torchvision_operators, randomise_norms

from .nets import entry, open_gates, run
from .test_like_a_file import check_alike


def yolo(name: str, width: float = 0.125) -> nn.Module:
    """A network of Ultralytics as it is exported, narrower than its smallest."""
    from ultralytics.nn import tasks

    rows = tasks.yaml_model_load(f"{name}.yaml")
    torch.manual_seed(0)
    if "rtdetr" in name:
        rows["head"][-1][3][:] = ["nc", 64, 30, 4, 4, 2]
        made = tasks.RTDETRDetectionModel(rows, ch=3, verbose=False)
    else:
        rows["scales"] = {"n": [*rows["scales"]["n"][:1], width, *rows["scales"]["n"][2:]]}
        made = tasks.DetectionModel(rows, ch=3, verbose=False)
    randomise_norms(made)
    made.model[-1].export = True
    made.model[-1].format = "onnx"
    return made.eval()


def retinanet() -> nn.Module:
    """torchvision's, on a ResNet-18."""
    _torchvision()
    from torchvision.models import resnet18
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(0)
    backbone = _resnet_fpn_extractor(resnet18(weights=None), 3, [2, 3, 4], LastLevelP6P7(256, 256))
    return RetinaNet(backbone, 5, min_size=128, max_size=160, score_thresh=0.0, detections_per_img=5000).eval()


def _torchvision() -> None:
    declare_torchvision_operators()
    if not hasattr(torch.ops.torchvision, "qnms"):
        torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@pytest.fixture
def suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes by their scores, none suppressed, on a machine without torchvision's compiled operators."""
    _torchvision()
    from torchvision.ops import boxes

    monkeypatch.setattr(boxes, "batched_nms", lambda boxes, scores, labels, threshold: scores.argsort(descending=True))


def rtdetr() -> nn.Module:
    """transformers', on a ResNet of four stages with one block each."""
    _torchvision()
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64, 128],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[32, 64, 128],
        encoder_hidden_dim=32,
        encoder_ffn_dim=32,
        encoder_attention_heads=4,
        d_model=32,
        decoder_in_channels=[32, 32, 32],
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=32,
        num_queries=10,
        num_denoising=0,
        num_labels=5,
    )
    return RTDetrForObjectDetection(config).eval()


def timm_features() -> nn.Module:
    """The maps of a ResNet of timm."""
    _torchvision()
    import timm

    torch.manual_seed(0)
    made = timm.create_model("resnet18", pretrained=False, features_only=True)
    randomise_norms(made)
    return made.eval()


class Case(NamedTuple):
    """A network, what it takes, places in it, and a number for its loss."""

    build: Callable[[], nn.Module]
    example: Any
    recipe: list[Mapping[str, object]]
    ids: list[str]


IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SE = {"settings": {"reduction": 4}}
CASES = {
    "yolov8": Case(
        lambda: yolo("yolov8n"),
        IMAGE,
        [entry("se", "model.8", **SE), entry("cbam", "model.7", **SE), entry("nam", "model.6.m.0.cv2")],
        ["model.6.m.0.cv2.nam", "model.7.cbam", "model.8.se"],
    ),
    "retinanet": Case(
        retinanet,
        [IMAGE[0]],
        [
            entry("se", "backbone.body.layer4", **SE),
            entry("eca", "backbone.body.layer2.0.bn2"),
            entry("nam", "backbone.fpn.layer_blocks.1"),
            entry("eca", "head.classification_head.conv.0"),
        ],
        [
            "backbone.body.layer2.0.bn2.eca",
            "backbone.body.layer4.1.se",
            "backbone.fpn.layer_blocks.1.0.nam",
            "head.classification_head.conv.0.1.eca",
        ],
    ),
    "rtdetr": Case(
        rtdetr,
        {"pixel_values": IMAGE},
        [entry("se", "model.backbone.model.encoder.stages.2", **SE), entry("nam", "model.encoder.fpn_blocks.0")],
        ["model.backbone.model.encoder.stages.2.se", "model.encoder.fpn_blocks.0.nam"],
    ),
    "timm": Case(
        timm_features,
        IMAGE,
        [entry("se", "layer3", **SE), entry("simam", "layer4.1.bn2"), {"module": "eca", "before": "layer2"}],
        ["layer2.0.eca", "layer3.1.act2.se", "layer4.1.bn2.simam"],
    ),
}


def forward(model: nn.Module, example: Any) -> Any:
    return model(**example) if isinstance(example, dict) else model(example)


def flat(value: Any) -> Tensor:
    """All numbers of an output."""
    if isinstance(value, Tensor):
        return value.flatten().float()
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else []
    return torch.cat([torch.zeros(0), *map(flat, parts)])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.long
@pytest.mark.usefixtures("suppression")
def test_every_old_tensor_loads_blocks_get_gradients_and_detach_is_exact(name: str) -> None:
    case = CASES[name]
    model = case.build()
    with torch.no_grad():
        before = flat(forward(model, case.example))
    old = {key: value.clone() for key, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gt.attach(model, case.recipe, case.example)
    assert sorted(each.id for each in gt.attachments(model)) == case.ids
    with torch.no_grad():
        assert torch.equal(flat(forward(model, case.example)), before)
    again = case.build()
    for value in again.state_dict().values():
        value.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gt.attach(again, case.recipe, case.example)
    loaded = again.load_state_dict(old, strict=False)
    assert loaded.unexpected_keys == []
    assert all(any(key.startswith(id) for id in case.ids) for key in loaded.missing_keys)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in old.items())
    open_gates(model)
    out = flat(forward(model, case.example))
    assert not torch.equal(out, before)
    out.square().mean().backward()
    for name, parameter in gt.block_parameters(model):
        assert parameter.grad is not None, name
        assert name.endswith("alpha") <= (float(parameter.grad.abs().max()) > 0)
    gt.detach(model)
    with torch.no_grad():
        assert torch.equal(flat(forward(model, case.example)), before)
    assert model.state_dict().keys() == old.keys()


@pytest.mark.parametrize("place", ["model.8", "model.7", "model.6.m.0.cv2"])
@pytest.mark.long
def test_the_battery_on_yolov8(place: str) -> None:
    model, x = yolo("yolov8n"), IMAGE
    gt.attach(model, [entry("cbam", place, **SE)], x)
    open_gates(model)
    y, plain = run(model, x), run(yolo("yolov8n"), x)
    near = 1e-3 * float((y - plain).abs().max())
    assert near > 0
    assert torch.equal(run(copy.deepcopy(model), x), y)
    assert torch.equal(run(pickle.loads(pickle.dumps(model)), x), y)
    fused = copy.deepcopy(model).fuse(verbose=False)
    assert float((run(fused, x) - y).abs().max()) < near
    with torch.autocast("cpu", torch.bfloat16):
        assert run(model, x).shape == y.shape
    assert run(copy.deepcopy(model).half(), x.half()).shape == y.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(run(torch.jit.trace(model, x, check_trace=False), x), y)
        assert torch.equal(run(torch.export.export(model, (x,), strict=False).module(), x), y)
        stream = io.BytesIO()
        torch.onnx.export(fused, (x,), stream, dynamo=False, input_names=["x"])
        dynamo = torch.onnx.export(model, (x,), dynamo=True, verbose=False, input_names=["x"]).model_proto
    scope = {"model.8": "/model.8", "model.7": "/model.7", "model.6.m.0.cv2": "/model.6/m.0/cv2"}[place]
    names = [node.name for node in onnx.load_from_string(stream.getvalue()).graph.node]
    assert any(name.startswith(f"{scope}/cbam/") for name in names)
    for data in (stream.getvalue(), dynamo.SerializeToString()):
        (found,) = onnxruntime.InferenceSession(data).run(None, {"x": x.numpy()})
        assert np.abs(found - y.numpy()).max() < near


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n", "rtdetr-l"])
@pytest.mark.long
def test_no_tensor_is_lost_or_misplaced_wherever_blocks_are(name: str) -> None:
    places = {
        "yolov8n": ("model.1", "model.8", "model.21", "model.6.m.0.cv2"),
        "yolo11n": ("model.1", "model.10", "model.22", "model.6.m.0.cv2"),
        "yolo26n": ("model.1", "model.10", "model.22", "model.6.m.0.cv2"),
        "rtdetr-l": ("model.1", "model.8", "model.27", "model.9.ec"),
    }[name]
    model, x = yolo(name), torch.zeros(1, 3, 64, 64)
    state = model.state_dict()
    marked = {key: torch.full_like(value, number) for number, (key, value) in enumerate(state.items())}
    for place in places:
        gt.attach(model, [entry("simam", place)], x)
        assert model.load_state_dict(marked, strict=False).unexpected_keys == []
        assert all(torch.equal(model.state_dict()[key], value) for key, value in marked.items())
        gt.detach(model)


@pytest.mark.long
def test_roles_types_and_consumers_are_the_same_as_in_a_file() -> None:
    recipe = [
        {"module": "eca", "after": "role:p{3,4,5}", "gate": "none"},
        entry("se", "C2f[-1]", gate="none", **SE),
        {"module": "simam", "after": "role:p4", "consumers": "Concat", "gate": "none"},
        {"module": "nam", "before": "SPPF", "gate": "none"},
        {"module": "simam", "after": "C2f[*].m.0", "gate": "none"},
    ]
    check_alike(yolo("yolov8n"), recipe, IMAGE, tolerance=1e-4)


@pytest.mark.long
def test_the_wrapper_of_ultralytics() -> None:
    from ultralytics import YOLO

    wrapper = YOLO("yolov8n.yaml")
    with pytest.raises(RequestError, match=r"YOLO is the wrapper that trains and exports; attach to its model"):
        gt.attach(wrapper, [entry("simam", "model.8")], IMAGE)


def test_the_head_of_ultralytics_keeps_its_anchors_and_roles_are_found() -> None:
    model = yolo("yolov8n", width=0.0625)
    model(torch.zeros(1, 3, 32, 32))
    head = model.model[-1]
    kept = (head.anchors, head.strides, head.shape)
    recipe = [entry("eca", "role:p{3,5}"), entry("simam", "C2f[-1]"), entry("eca", "model.1")]
    attached = gt.attach(model, recipe, IMAGE)
    assert [each.id for each in attached] == ["model.4.eca", "model.9.eca", "model.21.simam", "model.1.eca"]
    assert all(now is then for now, then in zip((head.anchors, head.strides, head.shape), kept, strict=True))
