"""Ultralytics' models, built from the YAML files of the installed package. For a process of their own: AGPL-3.0.

The truth is the YAML's: at each stride the last layer of ``backbone:``, and the maps that the last layer reads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.exports import make
from tests.recognition.families.packages import Packaged

SIZE = 256
_POINTS = 512
"""features of a text embedding, as MobileCLIP's"""

NAMES = (
    *("yolov3", "yolov3-tiny", "yolov3-spp", "yolov5n", "yolov5n-p6", "yolov6n"),
    *("yolov8n", "yolov8n-p2", "yolov8n-p6", "yolov8n-ghost", "yolov8n-ghost-p2", "yolov8n-ghost-p6"),
    *("yolov8n-seg", "yolov8n-seg-p6", "yolov8n-pose", "yolov8n-pose-p6", "yolov8n-obb", "yolov8n-rtdetr"),
    *("yolov8n-cls", "yolov8n-worldv2", "yoloe-v8n", "yoloe-v8n-seg"),
    *("yolov9t", "yolov9s", "yolov9m", "yolov9c", "yolov9c-seg", "yolov9e", "yolov10n", "yolov10s", "yolov10x"),
    *("yolo11n", "yolo11n-seg", "yolo11n-pose", "yolo11n-obb", "yolo11n-cls", "yoloe-11n-seg"),
    *("yolo12n", "yolo12n-seg", "yolo12n-pose", "yolo12n-obb"),
    *("yolo26n", "yolo26n-p2", "yolo26n-p6", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb", "yoloe-26n-seg"),
    *("rtdetr-l", "rtdetr-resnet50"),
)


class Exported(nn.Module):
    """A model as it is exported: its tensors, without the dictionaries that only training reads."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(_tensors(self.inner(x)))


def _tensors(found: object) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, (tuple, list)):
        for each in found:
            yield from _tensors(each)


def _build(name: str) -> Packaged:
    make.isolate(tempfile.mkdtemp())
    make.declare_torchvision_operators()
    from ultralytics import RTDETR, YOLO, YOLOE, YOLOWorld

    kinds = {"rtdetr": RTDETR, "yoloe": YOLOE, "world": YOLOWorld}
    kind = next((kind for word, kind in kinds.items() if word in name), YOLO)
    torch.manual_seed(make.SEED)
    model: Any = kind(f"{name}.yaml").model.eval()
    if name.startswith("yoloe"):
        model.set_classes(["one", "two"], torch.rand(1, 2, _POINTS))
    for module in model.modules():
        if hasattr(module, "export"):
            module.export, module.format, module.dynamic = True, "onnx", False
    return Packaged(Exported(model), {role: f"inner.model.{layer}" for role, layer in _roles(model)})


def _roles(model: Any) -> Iterator[tuple[str, int]]:
    """Each role with the layer that gives it."""
    levels: dict[int, int] = {}
    handles = [layer.register_forward_hook(_level(levels, layer.i)) for layer in model.model]
    with torch.no_grad():
        model(torch.rand(1, 3, SIZE, SIZE))
    for handle in handles:
        handle.remove()
    backbone = range(len(model.yaml["backbone"]))
    yield from {f"p{levels[i]}": i for i in backbone if levels.get(i, 0) > 1}.items()
    if not isinstance(sources := model.model[-1].f, int):
        yield from ((f"n{levels[i]}", i) for i in sources)


def _level(levels: dict[int, int], layer: int) -> Callable[..., None]:
    def hook(_module: Any, _given: Any, found: Any) -> None:
        if isinstance(found, Tensor) and found.ndim == 4 and not SIZE % found.shape[2]:
            levels[layer] = (SIZE // found.shape[2]).bit_length() - 1

    return hook


def _builder(name: str) -> Callable[[], Packaged]:
    return lambda: _build(name)


def builders(names: Iterable[str] = NAMES) -> dict[str, Callable[[], Packaged]]:
    """name -> what builds it."""
    return {name: _builder(name) for name in names}
