"""What runs a block here. None of it shares code with the templates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from graphsurgery.verification.rounding import rounded_after_every_node
from tests.patterns.attention.harness import Array, Built

Evaluator = Callable[[Array], Array]


class NoKernel(Exception):
    """onnxruntime's CPU provider has no implementation of an operator for this type."""


class Runtime:
    """onnxruntime on the CPU. NoKernel where it has no implementation; any other refusal is an error."""

    def __init__(self, model: onnx.ModelProto, *, optimise: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
        data = model.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
            raise NoKernel(str(error)) from None

    def __call__(self, x: Array) -> Array:
        y: Array = self._session.run(None, {"x": x})[0]
        return y


class Stepwise:
    """Half precision as a GPU computes it: inside an operator float32, between operators the site's own type."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._run = Runtime(rounded_after_every_node(model), optimise=False)

    def __call__(self, x: Array) -> Array:
        """``x`` in the site's type -> float32."""
        return self._run(x.astype(np.float32))


class Erf(OpRun):  # type: ignore[misc]
    """onnx's own computes in float32 whatever the type."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),)


class BatchNormalization(OpRun):  # type: ignore[misc]
    """onnx's own mixes the input's statistics in before opset 14, as in training."""

    op_domain = ""

    def _run(self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, **attributes: float) -> tuple[Array]:
        scale, bias, mean, var = (part.reshape(-1, *[1] * (x.ndim - 2)) for part in (scale, bias, mean, var))
        normal = (x - mean) / np.sqrt(var + np.asarray(attributes["epsilon"], x.dtype))
        return ((normal * scale + bias).astype(x.dtype),)


class ConvTranspose(OpRun):  # type: ignore[misc]
    """onnx's own takes one channel's weights for those of a group. Strides and dilations are 1 here."""

    op_domain = ""

    def _run(
        self, x: Array, weight: Array, bias: Array, *, group: int, pads: Sequence[int], **_: object
    ) -> tuple[Array]:
        (top, left, bottom, right), (height, width) = pads, x.shape[2:]
        rows, columns = weight.shape[2:]
        y = np.zeros((len(x), group, weight.shape[1], height + rows - 1, width + columns - 1), x.dtype)
        parts, kernels = (part.reshape(group, -1, *part.shape[1:]) for part in (x.swapaxes(0, 1), weight))
        for down, right_by in np.ndindex(rows, columns):
            moved = np.einsum("gknhw,gko->ngohw", parts, kernels[..., down, right_by])
            y[..., down : down + height, right_by : right_by + width] += moved
        y = y.reshape(len(x), -1, *y.shape[3:])[..., top : y.shape[3] - bottom, left : y.shape[4] - right]
        return (y + bias.reshape(-1, 1, 1),)


class GridSample(OpRun):  # type: ignore[misc]
    """onnx's own knows its mode by the name from opset 20 on only, has places in float32, and reads them one by one.

    Bilinear, 0 outside of the map.
    """

    op_domain = ""

    def _run(self, x: Array, grid: Array, *, align_corners: int = 0, **_: object) -> tuple[Array]:
        y: Array = np.zeros((*x.shape[:2], *grid.shape[1:3]), x.dtype)
        beyond = 0.0 if align_corners else 0.5
        places = [
            (grid[..., axis] + 1) / 2 * (side - 1 + 2 * beyond) - beyond
            for axis, side in ((1, x.shape[2]), (0, x.shape[3]))
        ]
        image = np.arange(len(x))[:, None, None]
        for steps in np.ndindex(2, 2):
            corner = [np.floor(place) + step for place, step in zip(places, steps, strict=True)]
            share = np.prod([1 - np.abs(place - at) for place, at in zip(places, corner, strict=True)], axis=0)
            inside = np.all([(at >= 0) & (at < side) for at, side in zip(corner, x.shape[2:], strict=True)], axis=0)
            row, column = (np.where(inside, at, 0).astype(np.int64) for at in corner)
            y += np.moveaxis(x[image, :, row, column], -1, 1) * np.where(inside, share, 0)[:, None]
        return (y.astype(x.dtype),)


class Reference:
    """onnx's own evaluator, written in numpy."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._evaluator = ReferenceEvaluator(model, new_ops=[Erf, BatchNormalization, ConvTranspose, GridSample])

    def __call__(self, x: Array) -> Array:
        with np.errstate(all="ignore"):  # its sigmoid overflows on the branch that it then does not take
            y: Array = self._evaluator.run(None, {"x": x})[0]
        return y


class OpenVino:
    """OpenVINO's ONNX reader and CPU plugin, in float32."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import openvino

        core = openvino.Core()
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)

    def __call__(self, x: Array) -> Array:
        y: Array = np.asarray(self._compiled((x,))[0])
        return y


class OpenCv:
    """OpenCV's dnn module."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import cv2

        self._net = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))

    def __call__(self, x: Array) -> Array:
        self._net.setInput(x)
        return np.asarray(self._net.forward())


def evaluators(built: Built) -> list[Evaluator]:
    """onnxruntime with graph optimisation on and off, or onnx's own evaluator where that has no kernels.

    None for bfloat16, of which onnxruntime has next to no kernels and whose sums onnx's evaluator rounds at every step.
    """
    if built.feature.dtype == "bfloat16":
        return []
    try:
        return [Runtime(built.model), Runtime(built.model, optimise=False)]
    except NoKernel:
        if "DeformConv" in built.operators:  # onnxruntime has it from 1.25 on
            return [Reference(built.model)]
        assert built.feature.dtype == "float64"
        assert {"Conv", "AveragePool", "Clip", "Erf"} & set(built.operators)
        if built.opset == 10 and "Resize" in built.operators:  # onnx's evaluator takes it for the one of opset 11
            return []
        return [Reference(built.model)]
