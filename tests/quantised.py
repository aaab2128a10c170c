"""A small detector-like graph, and what onnxruntime's quantiser makes of a float model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from graphsurgery.modelfile.model import ModelFile
from graphsurgery.request import Request
from tests import models
from tests.models import node, value

SITE = "/model.1/act/Mul_output_0"
"""what leaves model.1; /model.2/conv/Conv and /model.3/Concat read it"""
SHAPE = (1, 8, 16, 16)
IMAGE = (1, 3, 32, 32)

KINDS: dict[str, Mapping[str, Any]] = {
    "uint8": {"activation_type": QuantType.QUInt8},
    "int8": {"activation_type": QuantType.QInt8},
    "symmetric": {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}},
    "int16": {"activation_type": QuantType.QInt16},
    "uint16": {"activation_type": QuantType.QUInt16},
    "int16 of com.microsoft": {"activation_type": QuantType.QInt16, "extra_options": {"UseQDQContribOps": True}},
    "dedicated": {"activation_type": QuantType.QInt8, "extra_options": {"DedicatedQDQPair": True}},
    "qoperator": {"activation_type": QuantType.QUInt8, "quant_format": QuantFormat.QOperator},
}
"""how quantize_static is asked"""


def fork(opset: int = 17) -> onnx.ModelProto:
    """images -> model.0 and model.1 (Conv, SiLU) -> model.2 (Conv); model.3 (Concat) joins the last two -> Conv."""
    silus = [
        *_conv_silu("images", "/model.0", 0),
        *_conv_silu("/model.0/act/Mul_output_0", "/model.1", 1),
    ]
    nodes = [
        *silus,
        node("Conv", [SITE, "w2"], ["two"], "/model.2/conv/Conv", pads=[1, 1, 1, 1]),
        node("Concat", [SITE, "two"], ["both"], "/model.3/Concat", axis=1),
        node("Conv", ["both", "w4"], ["output"], "/model.4/conv/Conv"),
    ]
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 8, 3, 3), "w2": (8, 8, 3, 3), "w4": (4, 16, 1, 1)}
    weights = [models.weight(name, shape) for name, shape in shapes.items()]
    outputs = [value("output", (1, 4, 16, 16))]
    return models.model(nodes, [value("images", IMAGE)], outputs, weights, opset=opset)


def _conv_silu(source: str, path: str, number: int) -> Iterator[onnx.NodeProto]:
    made, gate = f"{path}/conv/Conv_output_0", f"{path}/act/Sigmoid_output_0"
    strides = [2, 2] if number == 0 else [1, 1]
    yield node("Conv", [source, f"w{number}"], [made], f"{path}/conv/Conv", pads=[1, 1, 1, 1], strides=strides)
    yield node("Sigmoid", [made], [gate], f"{path}/act/Sigmoid")
    yield node("Mul", [made, gate], [f"{path}/act/Mul_output_0"], f"{path}/act/Mul")


def images(count: int, shape: tuple[int, ...] = IMAGE) -> list[NDArray[np.float32]]:
    """Random images in 0 ... 1."""
    rng = np.random.default_rng(7)
    return [rng.random(shape, np.float32) for _ in range(count)]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, shape: tuple[int, ...], count: int) -> None:
        self._feeds = iter([{"images": image} for image in images(count, shape)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def quantised(
    model: onnx.ModelProto | Path, kind: str, shape: tuple[int, ...] = IMAGE, count: int = 3, **settings: Any
) -> bytes:
    """A float model as onnxruntime quantises it: one of KINDS, or "dynamic"."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = str(model), f"{folder}/out.onnx"
        if isinstance(model, onnx.ModelProto):
            source = f"{folder}/in.onnx"
            onnx.save(model, source)
        if kind == "dynamic":
            quantize_dynamic(source, out, weight_type=QuantType.QUInt8)
        else:
            quantize_static(source, out, _Reader(shape, count), **{**KINDS[kind], **settings})
        return Path(out).read_bytes()


def half_quantised(opset: int) -> bytes:
    """``fork`` up to model.2 in float16, with int8 pairs behind model.1: from opset 19 on with float16 scales, before
    that with Casts around the pair, as QuantizeLinear knew no float16 then.
    """
    direct = opset >= 19
    kind = np.float16 if direct else np.float32
    pair = ["scale", "zero"]
    steps = [node("Cast", [SITE], ["wide"], "/model.1/to_float", to=onnx.TensorProto.FLOAT)] if not direct else []
    steps += [
        node("QuantizeLinear", [SITE if direct else "wide", *pair], ["held"], "/model.1/QuantizeLinear"),
        node("DequantizeLinear", ["held", *pair], ["t"], "/model.1/DequantizeLinear"),
    ]
    if not direct:
        steps.append(node("Cast", ["t"], ["half"], "/model.1/to_half", to=onnx.TensorProto.FLOAT16))
    nodes = [
        *_conv_silu("images", "/model.0", 0),
        *_conv_silu("/model.0/act/Mul_output_0", "/model.1", 1),
        *steps,
        node("Conv", ["t" if direct else "half", "w2"], ["output"], "/model.2/conv/Conv", pads=[1, 1, 1, 1]),
    ]
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 8, 3, 3), "w2": (8, 8, 3, 3)}
    weights = [models.weight(name, shape, np.float16) for name, shape in shapes.items()]
    weights += [
        numpy_helper.from_array(np.asarray(0.03, kind), "scale"),
        numpy_helper.from_array(np.asarray(0, np.int8), "zero"),
    ]
    wide = onnx.TensorProto.FLOAT16
    made = models.model(
        nodes, [value("images", IMAGE, wide)], [value("output", SHAPE, wide)], weights, opset=opset, ir_version=9
    )
    return bytes(made.SerializeToString())


def se(selector: str, **arguments: Any) -> Request:
    """A squeeze-excite that fits eight channels, behind what a selector names."""
    return Request("se", after=(selector,), settings={"reduction": 2}, **arguments)


def run(model: ModelFile, image: NDArray[Any], *tensors: str) -> list[NDArray[Any]]:
    """The model's outputs, or these tensors, through onnxruntime without optimisation."""
    proto = onnx.ModelProto.FromString(model.to_bytes())
    if tensors:
        del proto.graph.output[:]
        proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, {"images": image})]


def maker(model: ModelFile, tensor: str) -> onnx.NodeProto:
    """The node that makes a tensor."""
    return next(each for each in model.structure.graph.node if tensor in each.output)


def reading(model: ModelFile, name: str) -> onnx.NodeProto:
    """The node of this name."""
    return next(each for each in model.structure.graph.node if each.name == name)
