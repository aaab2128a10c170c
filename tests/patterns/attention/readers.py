"""Programs that read ONNX files, each as a function from a model to what it computes, and what they cannot read.

A model is a block between two convolutions, as in a detector: readers fuse a block's ends with what stands around it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphsurgery.blocks.registry import all_blocks
from tests.patterns.attention.evaluators import OpenVino, Runtime
from tests.patterns.attention.harness import Array, build, feature_map

TARGETS = ("tensorrt", "onnxruntime")
SIZE = (64, 20, 20)
SETTINGS: Mapping[str, dict[str, object]] = {"shuffle": {"groups": 8}}
"""where the defaults do not go with 64 channels"""
OPSET, OPSETS = 17, {"lka[deformable]": 19}

# ---------------------------------------------------------------------- models


def variants() -> list[str]:
    """Every block in each of its variants."""
    return [f"{name}[{v}]" if v else name for name, block in all_blocks().items() for v in block.variants or [""]]


def host(spelled: str, target: str) -> onnx.ModelProto:
    """The block with its default settings, random weights and the form for a target, between two convolutions."""
    settings, feature = SETTINGS.get(spelled.partition("[")[0], {}), feature_map(*SIZE)
    opset, channels = OPSETS.get(spelled, OPSET), feature.channels
    block = build(spelled, settings, feature, opset=opset, target=target)
    for node in block.graph.node:
        node.input[:] = ["site" if name == "x" else name for name in node.input]
    rng = np.random.default_rng(3)
    shapes = {"first.weight": (channels, 3, 3, 3), "first.bias": (channels,), "last.weight": (8, channels, 1, 1)}
    weights = {key: rng.normal(0, 0.2, shape).astype(np.float32) for key, shape in shapes.items()}
    square = {"pads": [1] * 4, "kernel_shape": [3, 3]}
    first = helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["site"], "first", **square)
    last = helper.make_node("Conv", [block.subgraph.output, "last.weight"], ["y"], "last", kernel_shape=[1, 1])
    graph = helper.make_graph(
        [first, *block.graph.node, last],
        "host",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, *feature.size))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 8, *feature.size))],
        [*block.graph.initializer, *(numpy_helper.from_array(values, key) for key, values in weights.items())],
    )
    opsets = [helper.make_opsetid("", opset)]
    # by the name of the producer OpenCV 4 knows that an average counts the padding
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="pytorch")


def image(seed: int = 11) -> Array:
    """What a model of ``host`` is run on."""
    return np.random.default_rng(seed).uniform(-0.5, 1.5, (1, 3, *SIZE[1:])).astype(np.float32)


# ---------------------------------------------------------------------- readers

Run = Callable[[onnx.ModelProto, Array], Array]


@dataclass(frozen=True)
class Reader:
    """A program that reads ONNX files, and which blocks it reads."""

    name: str
    package: str
    run: Run
    within: float
    """how far it may be off, of the root of the mean square of the right result"""
    not_read: Mapping[str, str] = field(default_factory=dict)
    """block -> why it cannot be read, or is read wrongly"""
    not_read_for: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """target -> the same for blocks of which this form alone is not read"""
    slow: bool = False
    versions: tuple[str, ...] = ("",)
    """what the version of the package begins with"""

    @property
    def installed(self) -> bool:
        """Whether this Python has it, in one of the versions."""
        try:
            return version(self.package).startswith(self.versions)
        except PackageNotFoundError:
            return False

    def expected(self, target: str) -> Mapping[str, str]:
        """The blocks that it does not read in the form for a target."""
        return {**self.not_read, **self.not_read_for.get(target, {})}

    def error(self, model: onnx.ModelProto, x: Array) -> float:
        """How far it is off, of the root of the mean square of what onnxruntime computes; infinity if it refuses."""
        right = Runtime(model)(x)
        try:
            found = self.run(model, x)
        except Exception:  # each has errors of its own, and what is left out is compared with a list
            return np.inf
        return float(np.sqrt(np.square(found - right).mean() / np.square(right).mean()))


def _opencv(engine: str, model: onnx.ModelProto, x: Array) -> Array:
    import cv2

    keywords = {"engine": getattr(cv2.dnn, engine)} if engine else {}
    with tempfile.TemporaryDirectory() as folder:  # from bytes it takes the engine that it likes
        path = f"{folder}/model.onnx"
        onnx.save(model, path)
        net = cv2.dnn.readNetFromONNX(path, **keywords)
    net.setInput(x)
    return np.asarray(net.forward())


def _reference(model: onnx.ModelProto, x: Array) -> Array:
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        return np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0])


def _quantised(quantise: Callable[[str, str], None], model: onnx.ModelProto, x: Array) -> Array:
    with tempfile.TemporaryDirectory() as folder:
        source, made = f"{folder}/float.onnx", f"{folder}/quantised.onnx"
        onnx.save(model, source)
        quantise(source, made)
        return Runtime(onnx.load(made))(x)


def _statically(source: str, made: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, Any]] = iter([{"x": image(seed)} for seed in (11, 12)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(source, made, Images(), quant_format=QuantFormat.QDQ, per_channel=True, **kinds)


def _dynamically(source: str, made: str) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, made, weight_type=QuantType.QUInt8)


def _float16(module: str, model: onnx.ModelProto, x: Array) -> Array:
    converted = import_module(module).convert_float_to_float16(model, keep_io_types=True)
    return Runtime(converted)(x)


def _slimmed(model: onnx.ModelProto, x: Array) -> Array:
    import onnxslim

    return Runtime(onnxslim.slim(model))(x)


def _simplified(model: onnx.ModelProto, x: Array) -> Array:
    import onnxsim

    simplified, _ = onnxsim.simplify(model)
    return Runtime(simplified)(x)


def _torch(model: onnx.ModelProto, x: Array) -> Array:
    import onnx2torch
    import torch

    with torch.no_grad():
        return np.asarray(onnx2torch.convert(model).eval()(torch.from_numpy(x)).numpy())


_OPENCV = "opencv-python-headless"
_NO_GRID_SAMPLE = dict.fromkeys(("dattention[dwc]", "dattention[table]"), "no GridSample")
_REFUSED = "refused, as the exporter's form is"

READERS: Sequence[Reader] = (
    Reader(
        "OpenCV 5",
        _OPENCV,
        partial(_opencv, "ENGINE_NEW"),
        1e-4,
        not_read_for={
            "tensorrt": {"cbam[yolo-port]": _REFUSED},
            "onnxruntime": dict.fromkeys(("seam[single]", "seam[multi]"), "wrong, as the exporter's form is"),
        },
        versions=("5.",),
    ),
    Reader(
        "OpenCV 5, classic engine",
        _OPENCV,
        partial(_opencv, "ENGINE_CLASSIC"),
        1e-4,
        {"dattention[table]": _REFUSED},
        versions=("5.",),
    ),
    Reader("OpenCV 4.12", _OPENCV, partial(_opencv, ""), 1e-4, _NO_GRID_SAMPLE, versions=("4.12",)),
    Reader("OpenVINO", "openvino", lambda model, x: OpenVino(model)(x), 1e-4, slow=True),
    Reader(
        "onnx.reference",
        "onnx",
        _reference,
        1e-4,
        dict.fromkeys(_NO_GRID_SAMPLE, "no linear GridSample before opset 20"),
        {"onnxruntime": {"ema": "a ConvTranspose in groups"}},
        slow=True,
    ),
    Reader("onnxslim", "onnxslim", _slimmed, 1e-4, slow=True),
    Reader("onnxsim", "onnxsim", _simplified, 1e-4, slow=True),
    Reader("onnx2torch", "onnx2torch", _torch, 1e-4, _NO_GRID_SAMPLE),
    Reader(
        "quantize_static, QDQ, per channel",
        "onnxruntime",
        partial(_quantised, _statically),
        0.15,
        {"focused[cswin]": "powers of the queries, in 8 bits"},
        slow=True,
    ),
    Reader("quantize_dynamic", "onnxruntime", partial(_quantised, _dynamically), 0.05, slow=True),
    Reader("float16, onnxruntime's", "onnxruntime", partial(_float16, "onnxruntime.transformers.float16"), 1e-2),
    Reader(
        "float16, onnxconverter-common's",
        "onnxconverter-common",
        partial(_float16, "onnxconverter_common.float16"),
        1e-2,
    ),
)
"""Those of the last five change the numbers: they may be off as far as int8 and float16 are."""


def table() -> str:
    """The readers and what they do not read, as docs/readers.md has it."""
    lines = ["| Reader | The default form, for TensorRT | `--target onnxruntime` |", "|---|---|---|"]
    for reader in READERS:
        lines.append(f"| {reader.name} | {' | '.join(_cell(reader.expected(target)) for target in TARGETS)} |")
    return "\n".join(lines) + "\n"


def _cell(not_read: Mapping[str, str]) -> str:
    reasons = dict.fromkeys(not_read.values())
    blocks = {why: ", ".join(f"`{block}`" for block, given in not_read.items() if given == why) for why in reasons}
    return f"all but {'; '.join(f'{names} ({why})' for why, names in blocks.items())}" if blocks else "all"
