"""Request: what a user asks for, before it is known whether the model has such a place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import RequestError


@dataclass(frozen=True)
class Request:
    """One block at one or more places: what one ``graphsurgery insert``, or one entry of a recipe, asks for."""

    module: str
    after: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    init: str = "default"
    seed: int = 0
    gate: str = "none"
    weights: str | None = None
    """FILE[:PREFIX]"""
    target: str = "tensorrt"
    precision: str = "safe"
    lowering: str | None = None
    before: tuple[str, ...] = ()
    """in place of ``after``: in front of these, for what reads the tensor in them"""
    consumers: tuple[str, ...] = ()
    """with ``after``: only for the readers that these name"""
    qdq: str = "none"
    """"int8": QuantizeLinear and DequantizeLinear behind the block, where its readers had them in front"""
    qdq_scale: str = "site"
    """"site" or "images": where the scale of that comes from"""
    images: str | None = None
    """folder of images for it"""


def selectors(name: str, value: object) -> tuple[str, ...]:
    """One selector or several, as somebody gave them in Python. RequestError for anything else."""
    several = (value,) if isinstance(value, str) else value
    if isinstance(several, Iterable) and not isinstance(several, bytes | Mapping):
        found = tuple(several)
        if all(isinstance(each, str) for each in found):
            return found
    raise RequestError(f"{name} is a selector or a list of selectors, each a text such as '/model.8', not {value!r}")


def settings(value: object) -> dict[str, object]:
    """Hyper-parameters by name. RequestError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise RequestError(f"settings are hyper-parameters by name, as in {{'reduction': 8}}, not {value!r}")
    return dict(value)


def of_kind(name: str, value: Any, kind: type, what: str) -> Any:
    """``value``, if it is of a type. RequestError, with the words for the type, if it is not."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RequestError(f"{name} is {what}, not {value!r}")
    return value
