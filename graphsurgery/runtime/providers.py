"""onnxruntime's execution providers by short names: which are there, which take the nodes in what order, the options.

Options and their values: onnxruntime's documentation of the CUDA and the TensorRT execution provider.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from importlib import metadata
from typing import Any

from ..errors import MissingDependency, RequestError
from ..request import Argument

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

NVIDIA = ("cuda", "tensorrt")
"""Those whose tensors lie in the memory of an NVIDIA GPU."""

NAMES = Argument(words="is the name of a provider, such as 'cuda', or a list of them")

Chain = list[str | tuple[str, dict[str, str]]]

_FALLBACKS = {"cpu": (), "tensorrt": ("cuda", "cpu")}
"""Where nodes go that a provider does not take; the CPU for those not named here."""
_TENSORRT = {
    "trt_engine_cache_enable": "False",  # an engine of an earlier run must not stand in for this model
    "trt_timing_cache_enable": "False",
    "trt_max_workspace_size": str(1 << 30),
}
_TF32 = "NVIDIA_TF32_OVERRIDE"


def short_name(provider: str) -> str:
    """The short name of a provider given by either name. Raises RequestError that lists the known ones."""
    lowered = provider.strip().lower()
    for short, full in PROVIDERS.items():
        if lowered in (short, full.lower()):
            return short
    sentence = f"there is no provider called {provider!r}; known ones: {', '.join(PROVIDERS)}"
    raise RequestError(sentence, option="providers", candidates=tuple(PROVIDERS))


def available_providers() -> tuple[str, ...]:
    """Short names of the providers that the installed onnxruntime was built with. Raises MissingDependency.

    That a provider was built in does not mean that it can start: :func:`.runtime.usable` tries it.
    """
    built_in = onnxruntime().get_available_providers()
    return tuple(short for short, full in PROVIDERS.items() if full in built_in)


def onnxruntime() -> Any:
    """The package. Raises MissingDependency."""
    return imported(
        "onnxruntime", "onnxruntime", 'graphsurgery[gpu] for CUDA, else with pip install "graphsurgery[cpu]"'
    )


def imported(package: str, called: str, source: str) -> Any:
    """A package, imported. Raises MissingDependency, which calls it so and says what it comes with."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
        raise MissingDependency(f"{called} {reason}; it comes with {source}") from None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@lru_cache
def preload(ort: Any) -> None:
    """Load the CUDA and cuDNN libraries of the NVIDIA wheels; from 1.21 on onnxruntime does so only on demand."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            ort.preload_dlls()  # it prints what it misses; whether the provider then starts is seen at the session


def chain(name: str, installed: Sequence[str], types: Collection[str] = (), *, exact: bool = True) -> Chain:
    """What a session on this provider is asked for: the provider, and those that take what it leaves, with options.

    ``types``: "fp16", "bf16" and "int8", as far as the model has them: TensorRT before 11 needs to know. ``exact``:
    float32 without TF32, and TensorRT engines of the first tactic that works, which are built quickly and do not depend
    on timings; else as each provider is by default.
    """
    options: dict[str, dict[str, str]] = {"tensorrt": {**_TENSORRT}}
    if name == "tensorrt":
        options[name] |= {f"trt_{each}_enable": "True" for each in sorted({*types} - {"fp8"})}  # has no option
    if exact:
        options["cuda"] = {"use_tf32": "0"}
        options["tensorrt"]["trt_builder_optimization_level"] = "0"
        if name == "tensorrt":
            os.environ.setdefault(_TF32, "0")  # the provider has no option for it; TensorRT looks here when it builds
    fallbacks = [other for other in _FALLBACKS.get(name, ("cpu",)) if other in installed]
    return [(PROVIDERS[each], options.get(each, {})) for each in (name, *fallbacks)]


def missing(name: str, installed: Sequence[str]) -> str:
    """The sentence for a provider that the installed onnxruntime was built without."""
    has = ", ".join(installed)
    if name in NVIDIA:
        remedy = 'pip uninstall -y onnxruntime && pip install "graphsurgery[gpu]"'
    else:
        remedy = f"install an onnxruntime that was built with {PROVIDERS[name]}"
    return f"the installed onnxruntime has no {name} provider (it has: {has}); {remedy}"


def cannot_start(name: str) -> str:
    """The sentence for a provider that is built in and did not come up."""
    needs = {
        "cuda": "CUDA and cuDNN for cuda",
        "tensorrt": "TensorRT, CUDA and cuDNN for tensorrt, in the versions that this onnxruntime was built for",
    }.get(name, "those of the vendor")
    return (
        f"onnxruntime's {name} provider is installed but cannot start here: a device, its driver or a library "
        f"({needs}) is missing or has another version"
    )
