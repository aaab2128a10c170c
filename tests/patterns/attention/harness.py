"""One block alone in a model: how to build it, run it, and tell whether it is right.

The templates are judged by evaluators that share no code with them: onnx's checker and shape inference, onnxruntime,
onnx's reference evaluator, and the block's PyTorch module in float64 with the weights read back from the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphsurgery import folding, gate
from graphsurgery.block import Block, make_block
from graphsurgery.featuremap import FeatureMap
from graphsurgery.parity.stepwise import rounded_after_every_node
from graphsurgery.record import GATE_KEY, load_weights
from graphsurgery.template import Emitted, Template

Array = np.ndarray[Any, Any]
Settings = Mapping[str, object]

OPSETS = range(9, 27)
"""Those that the pinned onnx and onnxruntime both know."""
DTYPES = ("float32", "float16", "bfloat16", "float64")
HALVES = ("float16", "bfloat16")

TOLERANCES = {
    "float32": (1e-5, 1e-5),
    "float16": (2.5e-3, 1e-3),
    "bfloat16": (2e-2, 1e-2),
    "float64": (1e-10, 1e-10),
}
"""(absolute, for signals of order one; relative)"""

BLOCKS: list[tuple[str, dict[str, object]]] = [
    ("simam", {}),
    ("simam", {"e_lambda": 0.1}),
    ("se", {"reduction": 4}),
    ("se", {"hidden": 3, "bias": False}),
    ("ge", {}),
    ("ge", {"extent": 2}),
    ("ge", {"extent": 4}),
    ("ge", {"extent": 8}),
    ("ge[theta]", {"bn_eps": 1e-3}),
    ("ge[theta]", {"extent": 2}),
    ("ge[theta]", {"extent": 4, "bn_eps": 1e-3}),
    ("ge[theta]", {"extent": 8}),
    ("ge[theta-plus]", {}),
    ("ge[theta-plus]", {"extent": 2, "hidden": 5}),
    ("ge[theta-plus]", {"extent": 8, "bn_eps": 1e-3}),
    ("nam", {}),
    ("nam", {"bn_eps": 1e-3}),
    ("nam[channel+spatial]", {"bn_eps": 1e-3}),
]
"""Every block and variant, with settings that reach every branch."""


def label(block: tuple[str, Settings]) -> str:
    """``ge[theta] extent=4``: the id of a parametrised test."""
    return " ".join([block[0], *(f"{key}={value}" for key, value in block[1].items())])


def opsets_of(dtype: str) -> Sequence[int]:
    """The opsets in which a model can be of this type at all: bfloat16 came with 13."""
    return range(13, OPSETS.stop) if dtype == "bfloat16" else OPSETS


# ---------------------------------------------------------------------- building


@dataclass(frozen=True)
class Built:
    """A model of one block: input ``x``, output ``y``."""

    block: Block
    feature: FeatureMap
    model: onnx.ModelProto
    emitted: Emitted
    lowering: str

    @property
    def graph(self) -> onnx.GraphProto:
        return self.model.graph

    @property
    def operators(self) -> list[str]:
        return [node.op_type for node in self.graph.node]

    @property
    def constants(self) -> dict[str, TensorProto]:
        """Initializers and, for the oldest IR versions, Constant nodes, by name."""
        nodes = {node.output[0]: node.attribute[0].t for node in self.graph.node if node.op_type == "Constant"}
        return nodes | {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def weights(self) -> dict[str, Array]:
        """The block's parameters as the record reads them back from the model, float64."""
        constants, shapes = self.constants, self.block.parameters(self.feature)
        if GATE_KEY in self.emitted.stored:
            shapes = {**shapes, GATE_KEY: (1,)}
        return folding.read_back(self.emitted.stored, shapes, lambda name: numpy_helper.to_array(constants[name]))

    @cached_property
    def twin(self) -> torch.nn.Module:
        """The PyTorch module with those weights, float64, evaluation mode."""
        module = self.block.module(self.feature)
        load_weights(module, {key: value for key, value in self.weights.items() if key != GATE_KEY})
        return module.double().eval()

    def expected(self, x: Array) -> Array:
        """What the twin gives for ``x``, float64."""
        with torch.no_grad():
            y: Array = self.twin(torch.from_numpy(x.astype(np.float64))).numpy()
        return y


def feature_map(
    channels: int = 6,
    height: int | None = 13,
    width: int | None = 21,
    dtype: str = "float32",
    batch: int | None = 1,
) -> FeatureMap:
    """A site: by default odd, not square, and with channels that fill no vector register."""
    return FeatureMap(channels, height, width, dtype, batch, "/model.8")


def build(
    spelled: str,
    settings: Settings | None = None,
    feature: FeatureMap | None = None,
    *,
    opset: int = 17,
    lowering: str | None = None,
    weights: Mapping[str, Array] | None = None,
    gated: bool = False,
    target: str = "tensorrt",
    ir_version: int | None = None,
    seed: int = 0,
) -> Built:
    """The block in a model of its own; by default with the lowering that would be chosen and random weights.

    Goes the way of an insertion: parameters that the template does not hold are kept as the record keeps them.
    """
    block, feature = make_block(spelled, settings), feature or feature_map()
    block.check(feature)
    weights = dict(random_weights(block, feature, seed) if weights is None else weights)
    if gated:
        weights[GATE_KEY] = np.zeros(1, np.float32)
    template = Template(
        feature, opset=opset, scope="/block", weight_scope="block", target=target, weights=weights, x="x"
    )
    lowering = lowering or block.choose(template, block.lowerings(feature, opset))
    output = block.emit(template, lowering)
    if gated:
        output = gate.residual(template, output)
    ir_version = ir_version or helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    emitted = template.export(output, ir_version=ir_version)
    for key, values in weights.items():
        emitted.stored.setdefault(key, folding.keep(np.asarray(values)))
    shape = [
        "N" if feature.batch is None else feature.batch,
        feature.channels,
        "H" if feature.height is None else feature.height,
        "W" if feature.width is None else feature.width,
    ]
    graph = helper.make_graph(
        emitted.nodes,
        "block",
        [helper.make_tensor_value_info("x", feature.onnx_type, shape)],
        [helper.make_tensor_value_info(emitted.output, feature.onnx_type, shape)],
        emitted.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return Built(block, feature, model, emitted, lowering)


def random_weights(block: Block, feature: FeatureMap, seed: int = 0) -> dict[str, Array]:
    """Weights under which the gate really depends on the input, float32.

    Running variances between 0.3 and 2.5, scales of either sign, shifts and running means that are not zero. The scales
    of NAM are as large as their number, since each is divided by the sum of all.
    """
    rng = np.random.default_rng([seed, 77])
    found: dict[str, Array] = {}
    for key, shape in block.parameters(feature).items():
        if key.endswith("running_var"):
            values = rng.uniform(0.3, 2.5, shape)
        elif "Att." in key and key.endswith((".weight", ".bias")):
            values = rng.normal(0.0, 1.0, shape) * shape[0]
        elif len(shape) == 1:
            values = rng.normal(0.2, 0.8, shape)
        else:
            values = rng.normal(0.0, 1.5 / np.sqrt(np.prod(shape[1:])), shape)
        found[key] = values.astype(np.float32)
    return found


# ---------------------------------------------------------------------- inputs


def inputs(feature: FeatureMap, seed: int = 0, *, largest: float = 20.0) -> Iterator[tuple[str, Array]]:
    """Inputs for a site in its type: every magnitude from 1e-3 to ``largest``, constants, and a single spike."""
    shape = concrete(feature)
    rng = np.random.default_rng([seed, 5])
    signal = rng.standard_normal(shape) + 0.5 * rng.standard_normal((*shape[:2], 1, 1))
    for magnitude in (1e-3, 1e-1, 1.0, 20.0, largest):
        yield f"magnitude {magnitude:g}", (signal * magnitude).astype(feature.numpy_dtype)
    for constant in (0.0, 0.7, -3.0):
        yield f"constant {constant:g}", np.full(shape, constant, feature.numpy_dtype)
    spike = np.zeros(shape)
    spike[:, :, shape[2] // 2, shape[3] // 3] = 3.0
    yield "spike", spike.astype(feature.numpy_dtype)


def concrete(feature: FeatureMap) -> tuple[int, int, int, int]:
    """A shape that the site takes; 3 x 11 x 14 for what is dynamic."""
    return feature.batch or 3, feature.channels, feature.height or 11, feature.width or 14


# ---------------------------------------------------------------------- evaluators


class NoKernel(Exception):
    """onnxruntime's CPU provider has no implementation of an operator for this type."""


def run(model: onnx.ModelProto, x: Array, *, optimise: bool = True) -> Array:
    """onnxruntime on the CPU. NoKernel where it has none; any other refusal is an error."""
    return session(model, optimise=optimise).run(None, {"x": x})[0]


def session(model: onnx.ModelProto, *, optimise: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        raise NoKernel(str(error)) from None


class Stepwise:
    """Half precision as a GPU computes it: inside an operator float32, between operators the site's own type."""

    def __init__(self, built: Built) -> None:
        self._session = session(rounded_after_every_node(built.model), optimise=False)

    def __call__(self, x: Array) -> Array:
        """``x`` in the site's type -> float32."""
        y: Array = self._session.run(None, {"x": x.astype(np.float32)})[0]
        return y


def reference(model: onnx.ModelProto, x: Array) -> Array:
    """onnx's own evaluator, written in numpy."""
    y: Array = ReferenceEvaluator(model).run(None, {"x": x})[0]
    return y


# ---------------------------------------------------------------------- verdicts


def assert_close(actual: Array, expected: Array, dtype: str, what: str = "") -> None:
    """The project's tolerance for the type; its absolute part shrinks with a signal smaller than 1, down to 1e-3."""
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape} instead of {expected.shape}"
    absolute, relative = TOLERANCES[dtype]
    scale = min(max(float(np.abs(expected).max()), 1e-3), 1.0)
    error = np.abs(actual.astype(np.float64) - expected)
    allowed = absolute * scale + relative * np.abs(expected)
    excess = float(np.nan_to_num(error / allowed, nan=np.inf).max())
    assert excess <= 1.0, f"{what}: the error is {excess:.3g} times the tolerance, {error.max():.3g} at most"


def assert_valid(built: Built) -> None:
    """The checker with type and shape inference, strict inference to the declared shape, no name twice."""
    onnx.checker.check_model(built.model, full_check=True)
    bare = onnx.ModelProto()
    bare.CopyFrom(built.model)
    bare.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    shape = dimensions(inferred.graph.output[0])
    declared = dimensions(built.graph.input[0])
    assert len(shape) == 4
    assert [a for a, b in zip(shape, declared, strict=True) if isinstance(b, int)] == [
        b for b in declared if isinstance(b, int)
    ], f"inferred {shape}, declared {declared}"
    names = [node.name for node in built.graph.node]
    tensors = [name for node in built.graph.node for name in node.output] + [t.name for t in built.graph.initializer]
    assert all(names)
    assert len(names) == len(set(names))
    assert len(tensors) == len(set(tensors))


def dimensions(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]


FORBIDDEN = {"Shape", "Gather", "Expand", "Pow", "Transpose", "Flatten", "Reshape", "Gemm"}
"""Never in a template for a site of known height and width."""

TENSORRT = {
    "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Constant", "Conv", "Div", "Gather",
    "InstanceNormalization", "MatMul", "Max", "Mul", "ReduceMax", "ReduceMean", "Relu", "Resize", "Shape", "Sigmoid",
    "Sub", "Upsample",
}  # fmt: skip
"""Operators of templates that TensorRT's ONNX parser lists as supported in 8.6, 10.0, 10.1, 10.16 and 11.1, for
float32 and float16, and from 10.0 on for bfloat16 too. Source: docs/operators.md of onnx/onnx-tensorrt at those
versions. Its restrictions on these are tested one by one in assert_tensorrt_friendly."""


def assert_tensorrt_friendly(built: Built) -> None:
    """Supported operators only, in the forms that the parser takes; constants where it wants constants."""
    operators = set(built.operators)
    assert operators <= TENSORRT
    if built.feature.static:
        assert not operators & FORBIDDEN
    constants = built.constants
    for node in built.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type.startswith("Reduce"):
            assert len(node.input) == 1 or node.input[1] in constants
        if node.op_type == "AveragePool":
            assert len(attributes["kernel_shape"]) == 2
            assert set(attributes.get("dilations", [1])) == {1}
            assert attributes.get("ceil_mode", 0) == 0
        if node.op_type in ("Conv", "BatchNormalization", "InstanceNormalization"):
            assert all(name in constants for name in node.input[1:])
        if node.op_type == "Resize" and len(node.input) > 2:
            assert attributes["mode"] == b"nearest"
            assert attributes["coordinate_transformation_mode"] == b"asymmetric"
            assert attributes["nearest_mode"] == b"floor"
        if node.op_type in ("Resize", "Upsample") and built.feature.static:
            assert all(name in constants for name in node.input[1:] if name)
        # an operand of another rank would be reshaped by an extra layer
        if node.op_type in ("Add", "Sub", "Mul", "Div", "Max", "MatMul") and built.feature.static:
            assert all(len(constants[name].dims) == 4 for name in node.input if name in constants)


def assert_types(built: Built) -> None:
    """Every floating-point constant in the site's type, but for what a Resize wants in float32; none is unused."""
    read = {name for node in built.graph.node for name in node.input}
    constants = built.constants
    assert set(constants) <= read, f"unused: {sorted(set(constants) - read)}"
    for_resize = {name for node in built.graph.node if node.op_type in ("Resize", "Upsample") for name in node.input}
    for name, tensor in constants.items():
        if tensor.data_type != TensorProto.INT64 and not (name in for_resize and name != "x"):
            assert tensor.data_type == built.feature.onnx_type, name
    if built.feature.static:
        inferred = onnx.shape_inference.infer_shapes(built.model, strict_mode=True)
        kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
        made = [name for node in built.graph.node for name in node.output if name != built.emitted.output]
        assert {kinds[name] for name in made if name not in constants} <= {built.feature.onnx_type}
