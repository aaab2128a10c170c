"""What other tools make of an export: `python derive.py VARIANT SOURCE.onnx OUT.onnx`.

    qdq               onnxruntime's static quantisation: QuantizeLinear and DequantizeLinear around the operators
    qoperator         the same with QLinearConv and its like
    dynamic-int8      onnxruntime's dynamic quantisation: ConvInteger and MatMulInteger
    onnxsim           onnxsim, the simplifier that most tutorials name
    ort-extended      onnxruntime's own graph, saved: FusedConv, QuickGelu and other operators of com.microsoft
    dynamo-optimised  onnxscript's optimiser and then onnxslim, on a dynamo export

Calibration takes a few seeded images, none of them a photograph: what is quantised is a file to edit, not a detector to
use. Weights take 7 of their 8 bits: processors without instructions for 8 bits overflow with more.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray


def images(shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    """Yield seeded images of `shape` in 0 ... 1: colours that run into one another, and the noise that tests feed."""
    rng = np.random.default_rng(0)
    yield rng.random(shape, dtype=np.float32)
    for size in (4, 16):
        corners = rng.random((*shape[:2], size, size))
        steps = [np.linspace(0, size - 1, length) for length in shape[2:]]
        rows = np.apply_along_axis(lambda v, at=steps[0], n=size: np.interp(at, range(n), v), 2, corners)
        smooth = np.apply_along_axis(lambda v, at=steps[1], n=size: np.interp(at, range(n), v), 3, rows)
        yield np.clip(smooth + rng.normal(0, 0.02, shape), 0, 1).astype(np.float32)


def unfit(source: Path) -> list[str]:
    """Return the names of the nodes that read a constant which is not finite: an 8-bit scale would be infinite too."""
    graph = onnx.load(source).graph
    wide = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name in wide}
    infinite = {name for name, value in values.items() if not np.isfinite(value).all()}
    return [node.name for node in graph.node if infinite.intersection(node.input)]


def static(source: Path, out: Path, kind: str) -> None:
    """Quantise with scales measured on `images`, the weights of a convolution by its output channels."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            tensor = onnx.load(source, load_external_data=False).graph.input[0]
            shape = tuple(d.dim_value for d in tensor.type.tensor_type.shape.dim)
            self._feeds = iter([{tensor.name: image} for image in images(shape)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        settings = {"quant_format": getattr(QuantFormat, kind), "nodes_to_exclude": unfit(ready)}
        quantize_static(str(ready), str(out), Reader(), per_channel=True, reduce_range=True, **settings)


def dynamic(source: Path, out: Path) -> None:
    """Quantise weights only; activations are quantised when the model runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(source), str(out), weight_type=QuantType.QUInt8, nodes_to_exclude=unfit(source))


def simplify(source: Path, out: Path) -> None:
    """Pass the model through onnxsim."""
    import onnxsim

    model, right = onnxsim.simplify(onnx.load(source))
    if not right:
        raise RuntimeError("onnxsim says that its result is wrong")
    onnx.save(model, out)


def optimise(source: Path, out: Path) -> None:
    """Let onnxruntime write down the graph that it would run with its extended optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def slim(source: Path, out: Path) -> None:
    """Optimise with onnxscript, then with onnxslim, as people do with what dynamo wrote."""
    import onnxscript.optimizer
    import onnxslim

    model = onnxscript.optimizer.optimize(onnx.load(source))
    onnx.save(onnxslim.slim(model), out)


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "qdq": lambda source, out: static(source, out, "QDQ"),
    "qoperator": lambda source, out: static(source, out, "QOperator"),
    "dynamic-int8": dynamic,
    "onnxsim": simplify,
    "ort-extended": optimise,
    "dynamo-optimised": slim,
}

if __name__ == "__main__":
    TOOLS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
