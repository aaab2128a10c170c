"""Referees for the PyTorch modules: the same blocks as timm and torchvision have them."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch


def _import_torchvision() -> ModuleType:
    """torchvision, also where the wheel's compiled operators do not load (a CPU build of torch beside a CUDA wheel).

    It then fails where it gives its operators nms and qnms a shape function; declared, they will do: nothing runs them.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


@pytest.fixture(scope="session")
def torchvision_misc() -> ModuleType:
    """torchvision.ops.misc, which has SqueezeExcitation."""
    _import_torchvision()
    import torchvision.ops.misc

    return torchvision.ops.misc


@pytest.fixture(scope="session")
def timm_layers() -> ModuleType:
    """timm.layers, which has SqueezeExcite and GatherExcite. Importing it imports torchvision."""
    _import_torchvision()
    import timm.layers

    return timm.layers
