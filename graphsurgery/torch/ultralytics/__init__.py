"""Ultralytics with attached blocks: its own YOLO and RTDETR, that keep a recipe through training, resuming and export.

    from graphsurgery.torch.ultralytics import YOLO

    model = YOLO("yolov8n.pt", recipe="recipe.yaml")
    model.train(data="coco8.yaml", epochs=3)
    model.export(format="onnx")

Both are subclasses, and nothing of Ultralytics is patched. Ultralytics rebuilds a model to train it, which drops what
was attached; here the trainer attaches the blocks again before it loads the weights. Ultralytics is imported when one
of the two is first asked for.
"""

from __future__ import annotations

from typing import Any

from . import models

__all__ = ["RTDETR", "YOLO"]


def __getattr__(name: str) -> Any:
    """The classes, which cannot be made without Ultralytics. MissingDependency if it is not installed."""
    if name in __all__:
        return models.classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
