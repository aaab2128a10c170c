"""onnxruntime sessions: providers by short names, and never another provider than the one that was asked for.

onnxruntime falls back to the CPU with a warning when a provider cannot start, prints to standard output while it does
so, cannot exchange bfloat16 arrays, and uses TF32 for float32 on CUDA. A :class:`Session` does none of this.
"""

from __future__ import annotations

import ctypes
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx

from .errors import CannotRun, MissingDependency, MissingProvider, NoKernel, RequestError

Array = npt.NDArray[Any]

PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""Short name -> onnxruntime's name."""

_NVIDIA = ("cuda", "tensorrt")
_BEHIND = {"cpu": (), "tensorrt": ("cuda", "cpu")}
"""Where nodes go that a provider does not take; the CPU for those not named here."""
_OPTIONS: dict[str, dict[str, str]] = {"cuda": {"use_tf32": "0"}}

_NUMPY_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bfloat16)": ml_dtypes.bfloat16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    **{f"tensor({name})": np.dtype(name) for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
}


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a session. ``dtype`` is None for what numpy cannot hold (strings, sequences, maps)."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...]


class Session:
    """One model on one provider. Made by :func:`session`."""

    def __init__(self, inner: Any, provider: str, falls_back: bool) -> None:
        self._inner = inner
        self.provider = provider
        """Short name of the provider."""
        self.falls_back = falls_back
        """Whether some nodes run on the CPU instead of the provider."""
        self.inputs = tuple(_info(value) for value in inner.get_inputs())
        self.outputs = tuple(_info(value) for value in inner.get_outputs())
        bfloat16 = np.dtype(ml_dtypes.bfloat16)
        self._bound = any(info.dtype == bfloat16 for info in (*self.inputs, *self.outputs))

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Every output, in the model's order, for one array per input name. Raises CannotRun or NoKernel."""
        try:
            if self._bound:
                return self._run_bound(feeds)
            return [np.asarray(value) for value in self._inner.run(None, dict(feeds))]
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise _translated(error, self.provider) from None

    def _run_bound(self, feeds: Mapping[str, Array]) -> list[Array]:
        """As :meth:`run`, through OrtValues: the only way in and out for bfloat16, as 16-bit integers."""
        binding = self._inner.io_binding()
        values = {name: _to_ort(array) for name, array in feeds.items()}
        kept = list(feeds.values())  # an OrtValue does not own the array it was made from
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for info in self.outputs:
            binding.bind_output(info.name, "cpu")
        self._inner.run_with_iobinding(binding)
        del kept
        return [_from_ort(value) for value in binding.get_outputs()]


def session(
    model: bytes | Path,
    provider: str = "cpu",
    *,
    optimise: bool = True,
    folder: str | Path | None = None,
    threads: int = 0,
) -> Session:
    """A session for a model on disk or in memory.

    ``provider``: a key of :data:`PROVIDERS` or onnxruntime's own name. ``optimise``: all of onnxruntime's graph
    optimisations, or none. ``folder``: where the external data of an in-memory model lies. ``threads``: for one
    operator on the CPU; 0 lets onnxruntime choose.
    Raises MissingDependency, MissingProvider, NoKernel, CannotRun, and RequestError for an unknown provider.
    """
    name = short_name(provider)
    ort = _onnxruntime()
    installed = available_providers()
    if name not in installed:
        raise MissingProvider(_missing(name, installed))
    if name in _NVIDIA:
        _preload(ort)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    if folder is not None and not isinstance(model, Path):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    source = str(model) if isinstance(model, Path) else model
    try:
        inner = ort.InferenceSession(source, options, providers=_chain(name, installed), enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise _translated(error, name) from None
    if inner.get_providers()[0] != PROVIDERS[name]:
        raise MissingProvider(
            f"onnxruntime's {name} provider is installed but cannot start here: a device, its driver or a library "
            "of the vendor (CUDA and cuDNN for cuda) is missing or has another version"
        )
    return Session(inner, name, falls_back=name != "cpu" and not _runs_alone(ort, source, options, name))


def short_name(provider: str) -> str:
    """The short name of a provider given by either name. Raises RequestError that lists the known ones."""
    lowered = provider.strip().lower()
    for short, full in PROVIDERS.items():
        if lowered in (short, full.lower()):
            return short
    raise RequestError(f"there is no provider called {provider!r}; known ones: {', '.join(PROVIDERS)}")


def available_providers() -> tuple[str, ...]:
    """Short names of the providers that the installed onnxruntime was built with. Raises MissingDependency.

    That a provider was built in does not mean that it can start: :func:`usable` tries it.
    """
    built_in = _onnxruntime().get_available_providers()
    return tuple(short for short, full in PROVIDERS.items() if full in built_in)


def require(provider: str) -> None:
    """Make sure that sessions can be made on this provider, by making one. Raises what :func:`session` raises."""
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "probe", values[:1], values[1:])
    probe = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=7)
    session(probe.SerializeToString(), provider)


@lru_cache
def usable(provider: str) -> bool:
    """Whether sessions can be made on this provider here."""
    try:
        require(provider)
    except (MissingProvider, NoKernel, CannotRun):
        return False
    return True


def _onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
        raise MissingDependency(
            f"onnxruntime {reason}; it comes with pip install 'graphsurgery[cpu]' (or 'graphsurgery[gpu]' for CUDA)"
        ) from None


@lru_cache
def _preload(ort: Any) -> None:
    """Load the CUDA and cuDNN libraries of the NVIDIA wheels; from 1.21 on onnxruntime does so only when it is told."""
    if hasattr(ort, "preload_dlls"):
        import contextlib
        import io

        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            ort.preload_dlls()  # it prints what it misses; whether the provider then starts is seen at the session


def _chain(name: str, installed: Sequence[str]) -> list[str | tuple[str, dict[str, str]]]:
    behind = [other for other in _BEHIND.get(name, ("cpu",)) if other in installed]
    return [(PROVIDERS[each], _OPTIONS.get(each, {})) for each in (name, *behind)]


def _runs_alone(ort: Any, source: str | bytes, options: Any, name: str) -> bool:
    """Whether the provider takes every node: a second session that may not use the CPU can be made."""
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    chain = [entry for entry in _chain(name, available_providers()) if entry[0] != PROVIDERS["cpu"]]
    try:
        ort.InferenceSession(source, options, providers=chain, enable_fallback=0)
    except Exception:  # any refusal means the same here
        return False
    return True


def _missing(name: str, installed: Sequence[str]) -> str:
    has = ", ".join(installed)
    if name in _NVIDIA:
        remedy = "pip uninstall onnxruntime, then pip install 'graphsurgery[gpu]'"
    else:
        remedy = f"install an onnxruntime that was built with {PROVIDERS[name]}"
    return f"the installed onnxruntime has no {name} provider (it has: {has}); {remedy}"


def _info(value: Any) -> TensorInfo:
    dtype = _NUMPY_TYPES.get(value.type)
    return TensorInfo(value.name, None if dtype is None else np.dtype(dtype), tuple(value.shape or ()))


def _to_ort(array: Array) -> Any:
    ort = _onnxruntime()
    if array.dtype == ml_dtypes.bfloat16:
        bits = np.ascontiguousarray(array).view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _from_ort(value: Any) -> Array:
    if value.element_type() != onnx.TensorProto.BFLOAT16:
        return np.asarray(value.numpy())
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    array: Array = np.frombuffer(data, np.uint16).view(ml_dtypes.bfloat16).reshape(value.shape())
    return array


_TOO_NEW = re.compile(r"Unsupported model IR version|under development and support for this is limited")


def _translated(error: Exception, provider: str) -> NoKernel | CannotRun:
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^/\S+:\d+ .*?\) (?=[A-Z])", "", text)  # the C++ source line and signature in front of the reason
    if type(error).__name__ == "NotImplemented" or _TOO_NEW.search(text):
        return NoKernel(f"onnxruntime cannot run this on {provider}: {text}")
    return CannotRun(f"onnxruntime refuses this on {provider}: {text}")
