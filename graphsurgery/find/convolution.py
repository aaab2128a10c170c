"""ONNX's reference in float64, with the convolutions of PyTorch: its own take a hundred times as long."""

from __future__ import annotations

from typing import Any

import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_conv import Conv as _Conv

from ..feature_map import Array


def evaluator_in_float64(model: onnx.ModelProto) -> ReferenceEvaluator:
    """What runs a model, whose tensors are in float64."""
    return ReferenceEvaluator(model, new_ops=[Conv])


class Conv(_Conv):  # type: ignore[misc,unused-ignore]
    """A convolution of images with stated padding; any other is left to the reference."""

    def _run(  # type: ignore[override,unused-ignore]
        self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any
    ) -> tuple[Array]:
        pads = attributes.get("pads") or [0, 0, 0, 0]
        if x.ndim != 4 or attributes.get("auto_pad") not in (None, "NOTSET"):
            given: tuple[Array] = super()._run(x, weight, bias, **attributes)  # type: ignore[no-untyped-call,unused-ignore]
            return given
        top, left, bottom, right = pads
        padded = torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom))
        result = torch.nn.functional.conv2d(
            padded,
            torch.from_numpy(weight.copy()),
            None if bias is None else torch.from_numpy(bias.copy()),
            stride=tuple(attributes.get("strides") or (1, 1)),
            dilation=tuple(attributes.get("dilations") or (1, 1)),
            groups=attributes.get("group") or 1,
        )
        return (result.numpy(),)
