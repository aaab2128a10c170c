"""The layers of an engine, read from the JSON of TensorRT's engine inspector (or of trtexec --exportLayerInfo).

8.6 and 10.x give each tensor a "Format/Datatype"; 11 has "Format" and "Datatype" apart, and calls the engine's inputs
and outputs "I/O Tensors" instead of "Bindings". Without detailed profiling verbosity a layer is its name alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError

_TYPES = {"BF16": "bf16|bfloat", "FP16": "fp16|half|float16", "FP8": "fp8|e4m3"}
_TYPES |= {"INT8": "int8", "INT64": "int64", "INT32": "int32", "BOOL": "bool", "FP32": "fp32|float"}
"""how the inspector spells each type, the first that fits: what is left of the floats is float32"""
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class Layer:
    """One layer of an engine."""

    name: str
    type: str | None
    runs_in: tuple[str, ...]
    """types of its inputs and outputs, each once; empty where the engine does not tell"""
    nodes: tuple[str, ...]
    """names of the ONNX nodes that it was made from, as far as the engine says"""


def layers(information: str) -> list[Layer]:
    """The layers of an engine, in order. RequestError if the text is not what the inspector gives."""
    try:
        listed = json.loads(information)["Layers"]
        return [_layer(entry) for entry in listed]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RequestError("this is not the JSON of TensorRT's engine inspector") from None


def _layer(entry: Mapping[str, Any] | str) -> Layer:
    if isinstance(entry, str):
        return Layer(entry, None, (), _in_name(entry))
    tensors = [*entry.get("Inputs", ()), *entry.get("Outputs", ())]
    kinds = [kind for tensor in tensors if (kind := _type(tensor)) is not None]
    stated = named_layers(str(entry.get("Metadata") or ""))
    name = str(entry["Name"])
    return Layer(name, entry.get("LayerType"), tuple(dict.fromkeys(kinds)), stated or _in_name(name))


def named_layers(metadata: str) -> tuple[str, ...]:
    """The names of the ONNX nodes in the metadata that the parser gives a layer."""
    return tuple(_ONNX_LAYER.findall(metadata))


def _type(tensor: Mapping[str, Any] | str) -> str | None:
    if isinstance(tensor, str):
        return None
    stated = {key.replace(" ", "").lower(): str(value) for key, value in tensor.items()}
    text = stated.get("datatype") or stated.get("format/datatype") or stated.get("format") or ""
    return next((name for name, spellings in _TYPES.items() if re.search(spellings, text, re.I)), None)


def _in_name(name: str) -> tuple[str, ...]:
    """Node names inside a layer's name: ``A + B``, ``PWN(A, B)``, ``{ForeignNode[A...B]}``."""
    inner = re.sub(r"\{?ForeignNode\[|PWN\(|\]\}?|\)", " ", name).replace("...", " ")
    return tuple(part for part in re.split(r"\s\+\s|,|\s+", inner) if part and part != "+")


def became(found: Sequence[Layer], nodes: Iterable[str]) -> list[Layer]:
    """The layers that any of these ONNX nodes are part of."""
    wanted = set(nodes)
    return [layer for layer in found if wanted.intersection(layer.nodes)]


def types(found: Iterable[Layer]) -> dict[str, int]:
    """How many layers run in each type: that of their inputs and outputs, "mixed" where they have several."""
    counts: dict[str, int] = {}
    for layer in found:
        kind = "?" if not layer.runs_in else layer.runs_in[0] if len(layer.runs_in) == 1 else "mixed"
        counts[kind] = counts.get(kind, 0) + 1
    return counts
