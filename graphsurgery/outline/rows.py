"""Row: one block of a model, part of a block or single node, as the outline lists it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..feature_map import Dimension
from ..messages import attributes, shape_text

if TYPE_CHECKING:
    from ..selection.advice import Advice, Refused
    from ..selection.sites import Site
    from .standing import StandingBlock

LEVEL = re.compile("[pn][0-9]+")
"""roles that are levels of the feature pyramid"""
OUTPUT = "(model output)"
"""how the list of consumers calls an output of the model"""


@dataclass(frozen=True)
class Row:
    """One block, part of a block, or single node, and the tensor that leaves it."""

    name: str
    """the selector that names it: ``C2f[3]``, ``C2f[3].m.0``, ``op:Mul[7]``, ``tensor:NAME``"""
    part: str | None
    """its name in the block that it is a part of; None for an outermost block"""
    depth: int
    """1 for outermost blocks, 2 for their parts ..."""
    type: str
    number: int
    """which one of its type it is, in the order of the graph, parts counted"""
    path: str | None
    """module path as the model spells it; None where it tells none: the block is recovered from structure"""
    role: str | None
    """backbone, neck or head"""
    tensor: str
    roles: tuple[str, ...] = ()
    """p3, after-sppf, neck-outputs and so on, where its tensor is one"""
    shape: tuple[Dimension, ...] | None = None
    dtype: str | None = None
    stride: int | None = None
    readers: tuple[str, ...] = ()
    """what consumes the tensor: blocks by path or selector, single nodes by name"""
    insertions: tuple[str, ...] = ()
    """ids of the blocks that are inserted after it already"""
    objection: Advice | Refused | None = None
    """what speaks against the place after it"""
    standing: StandingBlock | None = None
    """the row is of this: a block that was found, rewritten, or put in the place of something"""
    find_site: Callable[[], Site] | None = field(default=None, compare=False, repr=False)
    """finds that place; None where no block can be put: few readers of rows need all that is known of it"""

    find_macs: Callable[[], int | None] = field(default=lambda: None, compare=False, repr=False)
    """counts its multiply-accumulates"""

    @cached_property
    def macs(self) -> int | None:
        """Its multiply-accumulates; None where they are not known."""
        return self.find_macs()

    @cached_property
    def site(self) -> Site | None:
        """The place after it; None where no block can be put."""
        return self.find_site() if self.find_site is not None else None

    @property
    def is_node(self) -> bool:
        """Whether it is a single node, and no block."""
        return self.name.startswith(("op:", "tensor:"))

    @property
    def title(self) -> str:
        """How pictures call it: ``C2f[3]``, ``Mul[7]``."""
        return f"{self.type}[{self.number}]" if self.is_node else self.name

    @property
    def is_advisable(self) -> bool:
        """Whether a block does well after it."""
        return self.find_site is not None and self.objection is None

    def __str__(self) -> str:
        """``C2f[3]: /model.8, [1, 256, 20, 20], stride 32, backbone, advisable``."""
        parts = (
            self.path or "recovered",
            shape_text(self.shape) if self.shape is not None else "shape not known",
            f"stride {self.stride}" if self.stride else None,
            self.role,
            "advisable" if self.is_advisable else f"not advisable: {self.objection.short}" if self.objection else None,
            str(self.standing) if self.standing else None,
            *self.insertions,
        )
        return f"{self.name}: {', '.join(part for part in parts if part)}"

    def to_json(self) -> dict[str, Any]:
        """Plain data with stable keys; the site's own, then those of the row."""
        site = self.site.to_json() if self.site else {}
        return {
            **attributes(self, "tensor", "shape", "dtype", "path", "type"),
            **site,
            "stride": self.stride,
            "selector": self.name,
            "index": self.number,
            **attributes(self, "depth", "role", "roles", "readers", "insertions", "macs"),
            **({"standing": self.standing.id} if self.standing else {}),
            "advisable": self.is_advisable,
            "reason": self.objection.sentence if self.objection else None,
        }
