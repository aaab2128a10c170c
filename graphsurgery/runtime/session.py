"""onnxruntime sessions: providers by short names, and never another provider than the one that was asked for.

onnxruntime falls back to the CPU with a warning when a provider cannot start, prints to standard output while it does
so, cannot exchange bfloat16 arrays, and uses TF32 for float32 on CUDA. A :class:`Session` does none of this.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from ..errors import CannotRun, MissingProvider, NoKernel, concerning
from ..feature_map import Array
from ..process import leftovers
from . import custom_ops
from .placement import Kernel, kernels
from .providers import (
    NVIDIA,
    PROVIDERS,
    available_providers,
    cannot_start,
    chain,
    missing,
    onnxruntime,
    preload,
    short_name,
)

__all__ = ["PROVIDERS", "Session", "available_providers", "require", "session", "short_name", "usable", "usual_threads"]

_PROBE = '<ir_version: 7, opset_import: ["": 13]> probe (float[1] x) => (float[1] y) { y = Identity(x) }'
_usual_threads: ContextVar[int] = ContextVar("usual_threads", default=0)
_WARNING, _FATAL = 2, 4
"""onnxruntime's levels of logging; the first is its default."""


class Session:
    """One model on one provider. Made by :func:`session`."""

    def __init__(self, inner: Any, provider: str, profile: TemporaryDirectory[str] | None = None) -> None:
        self._inner = inner
        self.provider = provider
        """Short name of the provider."""
        self.executed: tuple[Kernel, ...] = ()
        """What the first run ran, and where; for a profiled session, once it has run."""
        self.outputs: list[str] = [value.name for value in inner.get_outputs()]
        """Their names, in the model's order."""
        self._profile = profile
        self._bound = any(value.type == "tensor(bfloat16)" for value in (*inner.get_inputs(), *inner.get_outputs()))

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Every output, in the model's order, for one array per input name. Raises CannotRun or NoKernel."""
        try:
            outputs = self._run_bound(feeds) if self._bound else self._inner.run(None, dict(feeds))
            found = [np.asarray(value) for value in outputs]
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise _translated(error, self.provider) from None
        self._read_profile()
        return found

    def _run_bound(self, feeds: Mapping[str, Array]) -> list[Array]:
        """As :meth:`run`, through OrtValues: the only way in and out for bfloat16, as 16-bit integers."""
        binding, kept = self._binding(feeds, "cpu")
        self._inner.run_with_iobinding(binding)
        del kept
        return [_from_ort(value) for value in binding.get_outputs()]

    def bound(self, feeds: Mapping[str, Array]) -> Callable[[], None]:
        """A function that runs the model on these inputs, with inputs and outputs where the provider keeps its tensors.

        Nothing is copied but what the model itself copies (and bfloat16 inputs, which numpy cannot hand over to a
        device). It returns when the outputs are there. It has run once when it is given. Raises CannotRun or NoKernel.
        """
        device = "cuda" if self.provider in NVIDIA else "cpu"
        binding, kept = self._binding(feeds, device)

        def run() -> None:
            try:
                self._inner.run_with_iobinding(binding)
            except Exception as error:  # as above
                raise _translated(error, self.provider) from None
            assert kept is not None  # keeps the arrays that the values on the CPU refer to

        run()
        self._read_profile()
        # the next runs write into the memory of the first; binding a name again replaces what was bound, and clearing
        # the bindings first would free, in onnxruntime 1.23, what the values are views of
        for name, value in zip(self.outputs, binding.get_outputs(), strict=True):
            binding.bind_ortvalue_output(name, value)
        return run

    def _binding(self, feeds: Mapping[str, Array], device: str) -> tuple[Any, list[Array]]:
        """Inputs and outputs bound to memory of a device, and the arrays to keep as long: an OrtValue owns none."""
        binding = self._inner.io_binding()
        kept = [np.ascontiguousarray(array) for array in feeds.values()]
        for name, array in zip(feeds, kept, strict=True):
            binding.bind_ortvalue_input(name, _to_ort(array, device))
        for name in self.outputs:
            binding.bind_output(name, device)
        return binding, kept

    def _read_profile(self) -> None:
        if self._profile is not None:
            with self._profile:
                self.executed = kernels(Path(self._inner.end_profiling()).read_text(encoding="utf-8"))
            leftovers.forget(self._profile.name)
            self._profile = None


def session(
    model: bytes | Path,
    provider: str = "cpu",
    *,
    optimise: bool = True,
    folder: str | Path | None = None,
    threads: int = 0,
    types: Collection[str] = (),
    exact: bool = True,
    profiled: bool = False,
    frugal: bool = False,
) -> Session:
    """A session for a model on disk or in memory.

    ``provider``: a key of :data:`PROVIDERS` or onnxruntime's own name. ``optimise``: all of onnxruntime's graph
    optimisations, or none. ``folder``: where the external data of an in-memory model lies. ``threads``: for one
    operator on the CPU; 0 lets :func:`usual_threads` or onnxruntime choose. ``types``, ``exact``: see
    :func:`.providers.chain`. ``profiled``: whether the first run is, for :attr:`Session.executed`. ``frugal``: whether
    the CPU's memory is given back after each tensor instead of being kept for the next run.
    Raises MissingDependency, MissingProvider, NoKernel, CannotRun, and RequestError for an unknown provider.
    """
    name = short_name(provider)
    ort = onnxruntime()
    installed = available_providers()
    if name not in installed:
        raise MissingProvider(missing(name, installed), candidates=installed)
    if name in NVIDIA:
        preload(ort)
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads or _usual_threads.get()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # several sessions share the cores
    options.enable_cpu_mem_arena = not frugal
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    custom_ops.register(options)
    if folder is not None and not isinstance(model, Path):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    profile = TemporaryDirectory(prefix="graphsurgery-", ignore_cleanup_errors=True) if profiled else None
    if profile is not None:
        leftovers.register(profile.name, content=True)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(profile.name, "run"))
    source = str(model) if isinstance(model, Path) else model
    asked = chain(name, installed, types, exact=exact)
    try:
        with _silent(ort, name):
            inner = ort.InferenceSession(source, options, providers=asked, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise _translated(error, name) from None
    if inner.get_providers()[0] != PROVIDERS[name]:
        raise MissingProvider(cannot_start(name))
    return Session(inner, name, profile)


@contextmanager
def usual_threads(count: int) -> Iterator[None]:
    """While this lasts, sessions of which nothing else is said have so many threads for one operator; 0: as before."""
    token = _usual_threads.set(count or _usual_threads.get())
    try:
        yield
    finally:
        _usual_threads.reset(token)


@contextmanager
def _silent(ort: Any, name: str) -> Iterator[None]:
    """Keep what a provider that does not start logs, outside of any session, from standard error."""
    if name == "cpu":
        yield
        return
    ort.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_WARNING)


@concerning("providers", MissingProvider)
def require(provider: str) -> None:
    """Make sure that sessions can be made on this provider, by making one. Raises MissingProvider and what
    :func:`session` raises.
    """
    try:
        session(onnx.parser.parse_model(_PROBE).SerializeToString(), provider)
    except CannotRun:  # what one provider says by itself, another says so
        raise MissingProvider(cannot_start(short_name(provider))) from None


@lru_cache
def usable(provider: str) -> bool:
    """Whether sessions can be made on this provider here."""
    try:
        require(provider)
    except (MissingProvider, NoKernel, CannotRun):
        return False
    return True


def _to_ort(array: Array, device: str) -> Any:
    ort = onnxruntime()
    if array.dtype == ml_dtypes.bfloat16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), onnx.TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array, device)


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
    hint = custom_ops.hint() if custom_ops.UNKNOWN in text else ""
    return CannotRun(f"onnxruntime refuses this on {provider}: {text}{hint}")
