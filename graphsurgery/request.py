"""Request: what a user asks for, before it is known whether the model has such a place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
