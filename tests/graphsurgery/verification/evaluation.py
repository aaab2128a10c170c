"""Evaluation of a block in float64, or in float32, by PyTorch: an evaluator of its own, one function for each operator.

onnx.reference takes minutes for what this does in seconds; test_evaluation.py holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper

Values = dict[str, torch.Tensor]
Attributes = dict[str, Any]
Operator = Callable[..., Any]
_FIFTH = torch.tensor(0.2).item()
"""as attributes hold it, in float32"""


class Evaluator:
    """One block whose nodes have one output each, or the outputs of a Split."""

    def __init__(self, block: onnx.ModelProto, dtype: torch.dtype = torch.float64) -> None:
        self._dtype = dtype
        self.input, self._output = block.graph.input[0].name, block.graph.output[0].name
        self._constants = {tensor.name: self._tensor(tensor) for tensor in block.graph.initializer}
        self._steps = [(node, *self._prepared(node)) for node in block.graph.node]

    def run(self, array: Any, weights: Mapping[str, Any] | None = None) -> Any:
        """[N, C, H, W] -> what the block gives. ``weights``: in place of initializers of these names."""
        values = dict(self._constants)
        values |= {name: torch.tensor(value).to(self._dtype) for name, value in (weights or {}).items()}
        values[self.input] = torch.as_tensor(array).to(self._dtype)
        with torch.inference_mode():
            for node, operator, attributes in self._steps:
                given = [values[name] if name else None for name in node.input]
                found = operator(*given, **attributes)
                outputs = found if isinstance(found, (tuple, list)) else [found]
                values |= zip(node.output, outputs, strict=True)
        return values[self._output].to(torch.float64).numpy()

    def _tensor(self, tensor: onnx.TensorProto) -> torch.Tensor:
        value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        return value.to(self._dtype) if value.is_floating_point() else value

    def _prepared(self, node: onnx.NodeProto) -> tuple[Operator, Attributes]:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Constant":
            value = self._tensor(attributes["value"])
            return (lambda: value), {}
        if self._dtype == torch.float32 and node.op_type in APPROXIMATED:
            return _approximated(node.op_type), attributes
        return OPERATORS[node.op_type], attributes


def _approximated(op_type: str) -> Operator:
    """With the largest error that onnxruntime's kernel has."""

    def operator(x: torch.Tensor) -> torch.Tensor:
        signs = torch.arange(x.numel()).remainder(2).mul(2).sub(1).reshape(x.shape)
        return torch.as_tensor(OPERATORS[op_type](x) + APPROXIMATED[op_type] * signs)

    return operator


def _axes(x: torch.Tensor, axes: Sequence[int] | torch.Tensor | None) -> tuple[int, ...]:
    return tuple(int(axis) for axis in axes) if axes is not None and len(axes) else tuple(range(x.dim()))


def _reduction(compute: Callable[[torch.Tensor, tuple[int, ...], bool], torch.Tensor]) -> Operator:
    def operator(
        x: torch.Tensor, given: torch.Tensor | None = None, axes: Any = None, keepdims: int = 1, **_: Any
    ) -> Any:
        return compute(x, _axes(x, given if given is not None else axes), bool(keepdims))

    return operator


def _conv(x: Any, weight: Any, bias: Any = None, **given: Any) -> Any:
    top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    strides, dilations = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    return torch.nn.functional.conv2d(padded, weight, bias, strides, 0, dilations, given.get("group", 1))


def _windows(x: Any, filled: float, given: Attributes) -> Any:
    """[N, C, H', W', elements of a window]"""
    top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
    height, width = given["kernel_shape"]
    down, along = given.get("strides", (1, 1))
    padded = torch.nn.functional.pad(x, (left, right, top, bottom), value=filled)
    return padded.unfold(2, height, down).unfold(3, width, along).flatten(4)


def _average_pool(x: Any, **given: Any) -> Any:
    ones = _windows(torch.ones_like(x), float(given.get("count_include_pad", 0)), given)
    return _windows(x, 0.0, given).sum(4) / ones.sum(4)


def _max_pool(x: Any, **given: Any) -> Any:
    return _windows(x, -torch.inf, given).amax(4)


def _instance_normalization(x: Any, scale: Any, bias: Any, epsilon: float = 1e-5) -> Any:
    dims = tuple(range(2, x.dim()))
    shape = [1, -1, *([1] * len(dims))]
    centred = x - x.mean(dims, keepdim=True)
    spread = (centred.square().mean(dims, keepdim=True) + epsilon).sqrt()
    return centred / spread * scale.reshape(shape) + bias.reshape(shape)


def _layer_normalization(x: Any, scale: Any, bias: Any = None, axis: int = -1, epsilon: float = 1e-5, **_: Any) -> Any:
    dims = tuple(range(axis % x.dim(), x.dim()))
    centred = x - x.mean(dims, keepdim=True)
    y = centred / (centred.square().mean(dims, keepdim=True) + epsilon).sqrt() * scale
    return y if bias is None else y + bias


def _batch_normalization(
    x: Any, scale: Any, bias: Any, mean: Any, variance: Any, epsilon: float = 1e-5, **_: Any
) -> Any:
    shape = [1, -1, *([1] * (x.dim() - 2))]
    y = (x - mean.reshape(shape)) / (variance.reshape(shape) + epsilon).sqrt()
    return y * scale.reshape(shape) + bias.reshape(shape)


def _reshape(x: Any, shape: Any, allowzero: int = 0) -> Any:
    sizes = [x.shape[i] if size == 0 and not allowzero else int(size) for i, size in enumerate(shape)]
    return x.reshape(sizes)


def _slice(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    for place in range(len(starts)):
        axis = int(axes[place]) if axes is not None else place
        step = int(steps[place]) if steps is not None else 1
        chosen = range(x.shape[axis])[int(starts[place]) : int(ends[place]) : step]
        x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64))
    return x


def _pad(x: Any, pads: Any, value: Any = None, axes: Any = None, mode: bytes = b"constant") -> Any:
    assert mode == b"constant"
    assert axes is None
    rank = x.dim()
    pairs = [int(pads[axis + side * rank]) for axis in reversed(range(rank)) for side in (0, 1)]
    return torch.nn.functional.pad(x, pairs, value=float(value) if value is not None else 0.0)


def _gather(x: Any, indices: Any, axis: int = 0) -> Any:
    found = x.index_select(axis, indices.reshape(-1))
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis:][1:])


def _split(x: Any, sizes: Any = None, axis: int = 0, num_outputs: int = 0, **_: Any) -> Any:
    return x.split([int(size) for size in sizes] if sizes is not None else -(-x.shape[axis] // num_outputs), axis)


def _clip(x: Any, low: Any = None, high: Any = None, **given: Any) -> Any:
    low, high = given.get("min", low), given.get("max", high)
    x = x if low is None else torch.maximum(x, torch.as_tensor(low, dtype=x.dtype))
    return x if high is None else torch.minimum(x, torch.as_tensor(high, dtype=x.dtype))


def _hard_sigmoid(x: Any, alpha: float = _FIFTH, beta: float = 0.5) -> Any:
    return (alpha * x + beta).clamp(0, 1)


def _hardmax(x: Any, axis: int = -1) -> Any:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


def _squeeze(x: Any, axes: Any = None) -> Any:
    return x.squeeze(_axes(x, axes)) if axes is not None else x.squeeze()


def _unsqueeze(x: Any, axes: Any) -> Any:
    rank = x.dim() + len(axes)
    for axis in sorted(int(axis) % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _top_k(x: Any, k: Any, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    return torch.topk(x, int(k), axis, bool(largest), bool(sorted))


def _gather_nd(x: Any, indices: Any, batch_dims: int = 0) -> Any:
    batch = [torch.arange(size) for size in x.shape[:batch_dims]]
    own = [each.reshape([-1 if i == at else 1 for i in range(indices.dim() - 1)]) for at, each in enumerate(batch)]
    return x[(*own, *indices.unbind(-1))]


def _grid_sample(
    x: Any, grid: Any, mode: bytes = b"linear", padding_mode: bytes = b"zeros", align_corners: int = 0
) -> Any:
    wanted = {"linear": "bilinear", "cubic": "bicubic"}.get(mode.decode(), mode.decode())
    return torch.nn.functional.grid_sample(x, grid, wanted, padding_mode.decode(), bool(align_corners))


APPROXIMATED = {"Sigmoid": 1.4e-7, "Tanh": 3e-7}
OPERATORS: dict[str, Operator] = {
    "Identity": lambda x: x,
    "TopK": _top_k,
    "GatherND": _gather_nd,
    "GridSample": _grid_sample,
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Max": lambda *given: reduce(torch.maximum, given),
    "Min": lambda *given: reduce(torch.minimum, given),
    "MatMul": torch.matmul,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Relu": torch.relu,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Erf": torch.special.erf,
    "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "HardSigmoid": _hard_sigmoid,
    "Clip": _clip,
    "Softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "LogSoftmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "Hardmax": _hardmax,
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax((2, 3), keepdim=True),
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "Conv": _conv,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "BatchNormalization": _batch_normalization,
    "Reshape": _reshape,
    "Transpose": lambda x, perm: x.permute(*perm),
    "Concat": lambda *given, axis: torch.cat(given, axis),
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
