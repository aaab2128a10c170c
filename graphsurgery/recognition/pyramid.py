"""Pyramid: the maps of the backbone and of the neck by their strides: p3, p4 ..., n3, n4 ..."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from .boundary import NO_STAGE, Backbone, Boundary
from .extent import Extent
from .graph_view import View
from .paths import widens
from .stage_end import Reading
from .strides import Strides
from .tokens import is_patch_embedding

_LEVELS = range(1, 8)
PYRAMID = (
    *(f"p{level}" for level in _LEVELS),
    *(f"n{level}" for level in _LEVELS),
    *("neck-outputs", "stage-ends"),
)
_LEVEL = re.compile(r"([pn])([1-7])")
_BACKBONE, _NECK = "the backbone's last map", "what the neck gives"


@dataclass(frozen=True)
class Parts:
    """One network, and which part of it each node is in."""

    view: View
    strides: Strides
    extents: Mapping[int, Extent]
    role_of: Mapping[int, str]

    def extent(self, root: str) -> Extent | None:
        """What produces a tensor; None for an input of the model."""
        return self.extents.get(self.view.index.producer.get(root, -1))

    def role(self, root: str) -> str | None:
        """Which part produces a tensor."""
        return self.role_of.get(self.view.index.producer.get(root, -1))


class Pyramid:
    """The maps of one network that have roles by their stride."""

    def __init__(self, parts: Parts, backbones: Sequence[Backbone], feeding: Sequence[str], exit_strides: int) -> None:
        """``feeding``: the maps that the head reads; ``exit_strides``: at how many strides a head leaves the plane."""
        self._parts = parts
        self._view = parts.view
        self._strides = parts.strides
        self._backbones = backbones
        self._feeding = feeding
        self._exit_strides = exit_strides

    def role(self, name: str) -> list[str]:
        """The tensors of a role, in the order of the graph."""
        if match := _LEVEL.fullmatch(name):
            return (self._stages if match[1] == "p" else self._handed_over).get(2 ** int(match[2]), [])
        if name == "stage-ends":
            return [tensor for stride, tensors in sorted(self._stages.items()) if stride >= 4 for tensor in tensors]
        return [] if self._before_or_behind_stem else [self._view.outlet(root) for root in self._feeding]

    def readings(self, name: str) -> list[Reading]:
        """The maps of which one has a role, where structure does not tell which."""
        if name == "neck-outputs":
            found = list(self._before_or_behind_stem)
        elif match := _LEVEL.fullmatch(name):
            several = [r for each in self._backbones for readings in each.readings.values() for r in readings]
            of_kind = [*several, *self._last_of_classifier] if match[1] == "p" else self._before_or_behind_stem
            found = [reading for reading in of_kind if self._strides.stride(reading.root) == 2 ** int(match[2])]
        else:
            found = []
        return [replace(reading, root=self._view.outlet(reading.root)) for reading in found]

    # ------------------------------------------------------------------ the neck

    @cached_property
    def _handed_over(self) -> dict[int, list[str]]:
        """Stride -> the maps that the neck gives the head there."""
        found: dict[int, list[str]] = {}
        for root in self._feeding if not self._before_or_behind_stem else ():
            stride = self._strides.stride(root)
            if stride is not None and self._parts.role(root) == "neck":
                found.setdefault(stride, []).append(self._view.outlet(root))
        return found

    @cached_property
    def _before_or_behind_stem(self) -> tuple[Reading, ...]:
        """The two maps of which one is the neck's where the head is at one stride, so that no other tells whether a
        1x1 convolution in front of its branches is the head's.
        """
        if self._exit_strides != 1 or len(self._feeding) != 1 or self._parts.role(self._feeding[0]) != "neck":
            return ()
        last = self._parts.extent(self._feeding[0])
        if last is None or not last.is_pointwise or last.fact("activation") is None:
            return ()
        before = self._parts.extent(last.entries[0])
        if last.fact("channels_in") != last.fact("channels_out") or before is None or before.is_concat:
            return ()
        return (
            Reading(last.entries[0], f"{_NECK}, if the 1x1 convolution behind it is the head's"),
            Reading(self._feeding[0], f"{_NECK}, if the 1x1 convolution before it is the end of the neck"),
        )

    # ------------------------------------------------------------------ the stages

    @cached_property
    def _stages(self) -> dict[int, list[str]]:
        """Stride -> the last map of the backbone at that stride."""
        found: dict[int, list[str]] = {}
        if not self._backbones:
            if self._last is None:
                return found
            parts, unclear = self._parts, {reading.root for reading in self._last_of_classifier}
            outside = {node for node, role in parts.role_of.items() if role != "backbone"}
            boundary = Boundary(self._view, self._strides, parts.extents, outside, ())
            ends = [
                root for roots in boundary.of_whole(self._last).values() for root in roots if unclear.isdisjoint(roots)
            ]
        else:
            ends = [root for each in self._backbones for roots in each.stages.values() for root in roots]
        for root in ends:
            stride = self._strides.stride(root)
            if stride is not None and stride > 1:
                found.setdefault(stride, []).append(self._view.outlet(root))
        return found

    @cached_property
    def _last(self) -> str | None:
        """The last map at the deepest stride, where nothing tells the end of the backbone: in a classifier."""
        view, deepest = self._view, dict[int, str]()
        for node_index in view.order:
            extent = self._parts.extents[node_index]
            prepares = extent.block is None and view.op(node_index) in NO_STAGE
            if node_index != extent.last or prepares or self._parts.role_of[node_index] != "backbone":
                continue
            for name in view.outputs(node_index):
                stride = self._strides.stride(name)
                if stride is not None and not is_patch_embedding(view, self._strides, name):
                    deepest[stride] = name
        return deepest[max(deepest)] if deepest else None

    @cached_property
    def _last_of_classifier(self) -> tuple[Reading, ...]:
        """The two maps of which one ends the backbone of a classifier: MobileNet's last convolution, which widens, is
        the classifier's for some and the backbone's for others.
        """
        root = self._last
        last = self._parts.extent(root) if root is not None and not self._backbones else None
        if root is None or last is None or not widens(last) or self._view.is_output(root):
            return ()
        return (
            Reading(last.entries[0], f"{_BACKBONE}, if the 1x1 convolution behind it is the classifier's"),
            Reading(root, f"{_BACKBONE}, if the 1x1 convolution before it is the end of the backbone"),
        )
