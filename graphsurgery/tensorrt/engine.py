"""Engines: built from a model, run, timed in turns with a baseline, compared with onnxruntime, and looked into.

Needs the tensorrt package and a PyTorch with CUDA, which holds the memory and the stream. The calls are those of
TensorRT 8.6 to 11 that all of them have; where they differ, the version decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckFailed, EnvironmentLacks, MissingDependency, RequestError
from ..feature_map import Array
from ..modelfile.model import ModelFile
from ..runtime.sample_inputs import graph_inputs
from .commands import builder_types
from .inspector import Layer, layers
from .parser import builder, major, network, tensorrt
from .profiles import profiles

_TORCH_TYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"} | {
    name: name.lower() for name in ("INT8", "INT32", "INT64", "UINT8", "BOOL")
}


@dataclass(frozen=True)
class Tools:
    """What an engine needs, imported: the tensorrt package, its logger and builder, and PyTorch."""

    trt: Any
    logger: Any
    builder: Any
    torch: Any

    @property
    def versions(self) -> dict[str, str]:
        """Versions and the device, for the report."""
        device = self.torch.cuda.get_device_name()
        return {"tensorrt": str(self.trt.__version__), "torch": str(self.torch.__version__), "device": device}


def tools() -> Tools:
    """Everything that an engine needs. EnvironmentLacks where a GPU, MissingDependency where a package is missing."""
    trt = tensorrt()
    try:
        import torch
    except ImportError:
        raise MissingDependency("PyTorch is not installed, which holds the memory of an engine's tensors") from None
    if not torch.cuda.is_available():
        raise EnvironmentLacks("PyTorch finds no CUDA device here, which an engine needs")
    logger, ready = builder(trt)
    return Tools(trt, logger, ready, torch)


def build(have: Tools, path: Path, precision: str | None, shapes: Sequence[str]) -> bytes:
    """A serialised engine of the model at ``path``. CheckFailed with what TensorRT says if it cannot be built.

    ``precision`` as for the commands: before TensorRT 11 a type that the builder may choose; None: those of the file.
    """
    trt, model = have.trt, ModelFile.load(path)
    definition = network(trt, have.builder)
    parser = trt.OnnxParser(definition, have.logger)
    if not parser.parse_from_file(str(path)):
        said = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise CheckFailed(f"TensorRT {trt.__version__} cannot parse {path.name}: {said or 'it does not say why'}")
    config = have.builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    flags = builder_types(model, precision) if major(trt) < 11 else ()  # from 11 on the file decides
    for flag in sorted(flags):
        config.set_flag(getattr(trt.BuilderFlag, flag.upper()))
    ranges = profiles(model, shapes)
    if ranges:
        profile = have.builder.create_optimization_profile()
        for each in ranges:
            profile.set_shape(each.name, each.smallest, each.usual, each.largest)
        config.add_optimization_profile(profile)
    serialised = have.builder.build_serialized_network(definition, config)
    if serialised is None:
        raise CheckFailed(
            f"TensorRT {trt.__version__} cannot build an engine of {path.name}; trtexec --verbose says why"
        )
    return bytes(serialised)


class Engine:
    """An engine on the GPU, with one execution context."""

    def __init__(self, have: Tools, serialised: bytes) -> None:
        self._trt, self._torch = have.trt, have.torch
        self._runtime = have.trt.Runtime(have.logger)
        self._engine = self._runtime.deserialize_cuda_engine(serialised)
        if self._engine is None:
            raise CheckFailed("TensorRT cannot load the engine that it has just built")
        self._context = self._engine.create_execution_context()
        self._stream = have.torch.cuda.Stream()
        self._tensors: dict[str, Any] = {}
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = {n: self._engine.get_tensor_mode(n) == have.trt.TensorIOMode.INPUT for n in names}
        self.inputs = [name for name in names if is_input[name]]
        self.outputs = [name for name in names if not is_input[name]]

    def layers(self) -> list[Layer]:
        """What the engine is made of."""
        inspector = self._engine.create_engine_inspector()
        return layers(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def feed(self, feeds: Mapping[str, Array]) -> None:
        """Put inputs into place, in the engine's own types, and make room for the outputs."""
        torch = self._torch
        for name in self.inputs:
            array = np.ascontiguousarray(feeds[name])
            self._tensors[name] = torch.from_numpy(array).to("cuda").to(self._type(name))
            self._context.set_input_shape(name, tuple(array.shape))
        for name in self.outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise RequestError(f"the size of the output {name} depends on the data, which this does not compare")
            self._tensors[name] = torch.empty(shape, dtype=self._type(name), device="cuda")
        for name, tensor in self._tensors.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        torch.cuda.synchronize()

    def run(self, times: int = 1) -> float:
        """Run on what was fed; the mean time of one run in milliseconds, measured on the GPU."""
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(self._stream)
        for _ in range(times):
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise CheckFailed("TensorRT could not run the engine")
        end.record(self._stream)
        end.synchronize()
        return float(start.elapsed_time(end)) / times

    def results(self) -> dict[str, Array]:
        """The outputs of the last run, floats as float32."""
        found = {name: self._tensors[name] for name in self.outputs}
        return {n: (t.float() if t.is_floating_point() else t).cpu().numpy() for n, t in found.items()}

    def _type(self, name: str) -> Any:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in _TORCH_TYPES:
            raise RequestError(f"{name} is of the type {kind}, which cannot be fed from here")
        return getattr(self._torch, _TORCH_TYPES[kind])


def random_feeds(model: ModelFile, shapes: Sequence[str] = (), seed: int = 0) -> dict[str, Array]:
    """One array of random numbers from 0 to 1 for each input, in its own type; of its usual size if that is dynamic."""
    usual = {each.name: each.usual for each in profiles(model, shapes)}
    rng = np.random.default_rng(seed)
    return {i.name: rng.random(usual.get(i.name, i.concrete(1))).astype(i.dtype) for i in graph_inputs(model.structure)}
