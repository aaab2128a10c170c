"""Anatomy: backbone, neck and head of a detector, and the tensors that people name by their role."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from .found import Found
from .pattern import HeadPattern
from .plane import Plane
from .view import View

ROLES = ("p1", "p2", "p3", "p4", "p5", "p6", "p7", "before-sppf", "after-sppf", "neck-outputs", "stage-ends")
_PYRAMID = re.compile(r"p([1-7])")
_POOLING = ("SPPF", "SPP")
_TOWER = ("Conv", "DWConv", "LightConv", "Concat", "RepConv")
"""blocks that a head consists of in front of its exits from the image plane"""
_ENCODERS = ("AIFI",)


class Anatomy:
    """What belongs where, in one model. Works on units: recognised blocks, and single nodes that are in none."""

    def __init__(self, view: View, plane: Plane, blocks: Sequence[Found], heads: Sequence[HeadPattern]) -> None:
        self._view = view
        self._plane = plane
        self._order = {position: place for place, position in enumerate(view.order)}
        self._unit: dict[int, Found] = {}
        for block in blocks:
            self._unit.update(dict.fromkeys(block.nodes, block))
        self._found = list(blocks)
        self._heads = heads
        head = self._head_nodes
        head = head | self._behind(head)
        neck = self._neck_nodes(head)
        self._role_of = {p: "head" if p in head else "neck" if p in neck else "backbone" for p in view.active}
        self.blocks = [
            *(replace(b, role=self._role_of[min(b.nodes)]) for b in blocks if b.nodes.isdisjoint(head)),
            *self._detection_head(head),
        ]

    def role(self, name: str) -> list[str]:
        """The tensors of a role, in the order of the graph."""
        if name not in ROLES:
            raise KeyError(name)
        if match := _PYRAMID.fullmatch(name):
            return self._stages.get(2 ** int(match[1]), [])
        if name == "stage-ends":
            return [tensor for stride, tensors in sorted(self._stages.items()) if stride >= 4 for tensor in tensors]
        if name == "neck-outputs":
            return [self._view.outlet(root) for root in self._feeding]
        pools = [block for block in self.blocks if block.type in _POOLING]
        if name == "after-sppf":
            return [block.output for block in pools]
        return [self._view.outlet(entry) for block in pools for entry in block.entries]

    def of_node(self, position: int) -> str | None:
        """backbone, neck or head; None for nodes that work on sizes or constants only."""
        return self._role_of.get(position)

    # ------------------------------------------------------------------ the head

    @cached_property
    def _returns(self) -> set[int]:
        """Positions of the nodes with something in the image plane behind them."""
        view, plane, found = self._view, self._plane, set[int]()
        for position in reversed(view.order):
            outputs = view.outputs(position)
            if any(plane.is_in(name) for name in outputs) or any(r in found for n in outputs for r in view.readers(n)):
                found.add(position)
        return found

    @cached_property
    def _exits(self) -> list[str]:
        """Tensors in the plane that are read by what never comes back into it, or that are outputs of the model."""
        view, plane = self._view, self._plane
        found = []
        for position in view.order:
            for name in view.outputs(position):
                leaves = any(reader not in self._returns for reader in view.readers(name))
                if plane.is_in(name) and (leaves or (view.is_output(name) and not view.readers(name))):
                    found.append(name)
        return found

    @cached_property
    def _head_nodes(self) -> set[int]:
        """Nodes in the plane in front of the exits that serve nothing else: the towers of a head.

        A classifier, with one exit through a mean over the map, has none.
        """
        exits = self._exits
        if len(exits) < 2 and not self._many_maps:
            return set()
        taken: set[int] = set()
        pending = list(exits)
        while pending:
            root = pending.pop()
            position = self._view.producer(root)
            if position is None or position not in self._view.active or position in taken:
                continue
            nodes, entries = self._extent(position)
            if not self._in_tower(position) or not self._serves_only(nodes, taken):
                continue
            taken |= nodes
            pending += entries
        return taken

    @property
    def _many_maps(self) -> bool:
        return any(self._view.op(p) == "Resize" for p in self._view.active)

    def _extent(self, position: int) -> tuple[frozenset[int], Sequence[str]]:
        """A unit's nodes and what enters it."""
        block = self._unit.get(position)
        if block is not None:
            return block.nodes, block.entries
        return frozenset({position}), self._view.inputs(position)

    def _in_tower(self, position: int) -> bool:
        block = self._unit.get(position)
        if block is None:
            return self._view.op(position) not in ("Resize", "MaxPool", "AveragePool", "Add")
        if (
            block.type == "InvertedResidual"
        ):  # what a tower of YOLO11 looks like: 1x1, depthwise, and the last 1x1 without activation
            return self._many_maps and not self._view.is_output(block.root)
        return block.type in _TOWER and block.facts.get("stride", (1, 1)) == (1, 1)

    def _serves_only(self, nodes: frozenset[int], taken: set[int]) -> bool:
        """Whether all that reads these nodes is the head."""
        view = self._view
        for position in nodes:
            for name in view.outputs(position):
                for reader in view.readers(name):
                    if reader not in nodes and reader not in taken and reader in self._returns:
                        return False
        return True

    def _behind(self, head: set[int]) -> set[int]:
        """Nodes behind the exits of the towers, off the plane."""
        if not head and not self._feeding:
            return set()
        return {position for position in self._view.active if position not in self._returns} - head

    @cached_property
    def _feeding(self) -> list[str]:
        """The maps that the head reads, in the order of the graph."""
        view, head = self._view, self._head_nodes
        if not head:
            return []
        read = {name for p in head for name in view.inputs(p)} | set(self._exits)
        made = {name for p in head for name in view.outputs(p)}
        return sorted(read - made, key=lambda name: self._order.get(view.producer(name) or -1, -1))

    def _detection_head(self, nodes: set[int]) -> Iterator[Found]:
        if not self._feeding or not any(block.nodes <= nodes for block in self._found):
            return  # without a convolution of its own nothing is a head
        kinds = {self._view.op(position) for position in nodes}
        for pattern in self._heads:
            groups = [{group} if isinstance(group, str) else set(group) for group in pattern.has]
            if all(kinds & group for group in groups) and not kinds & set(pattern.lacks):
                outputs = [name for p in nodes for name in self._view.outputs(p) if self._view.is_output(name)]
                last = max(outputs, key=lambda name: self._order.get(self._view.producer(name) or -1, -1), default="")
                inner = [leaf for block in self._found if block.nodes <= nodes for leaf in _leaves(block)]
                parts = tuple((f"tower.{i}", block) for i, block in enumerate(inner))
                entries = tuple(self._feeding)
                yield Found(
                    pattern.name,
                    pattern.aliases,
                    entries,
                    last,
                    frozenset(nodes),
                    parts,
                    facts=pattern.facts,
                    root=last,
                    role="head",
                )
                return

    # ------------------------------------------------------------------ the neck

    def _neck_nodes(self, head: set[int]) -> set[int]:
        """What is behind a Resize or an encoder layer and not the head, and the projections that lead only there."""
        view = self._view
        neck: set[int] = set()
        for position in view.order:
            block = self._unit.get(position)
            starts = view.op(position) == "Resize" or (block is not None and block.type in _ENCODERS)
            sources = {view.producer(name) for name in view.inputs(position)}
            if position not in head and (starts or sources & neck):
                neck |= block.nodes if block is not None else {position}
        for position in reversed(view.order) if neck else ():
            nodes, _ = self._extent(position)
            block = self._unit.get(position)
            if position in neck or position in head or block is None or not self._is_projection(block):
                continue
            readers = {
                reader
                for name in view.outputs(max(nodes, key=self._order.__getitem__))
                for reader in view.readers(name)
            }
            if readers and all(reader in neck or reader in head for reader in readers):
                neck |= nodes
        return neck

    @staticmethod
    def _is_projection(block: Found) -> bool:
        return block.type == "Conv" and block.facts.get("kernel") == (1, 1) and block.facts.get("stride") == (1, 1)

    # ------------------------------------------------------------------ the stages

    @cached_property
    def _stages(self) -> dict[int, list[str]]:
        """Stride -> the deepest tensor of the backbone at that stride."""
        view, plane, deepest = self._view, self._plane, dict[int, str]()
        for position in view.order:
            nodes, _ = self._extent(position)
            last = max(nodes, key=self._order.__getitem__)
            if position != last or self._role_of.get(position) != "backbone":
                continue
            for name in view.outputs(position):
                stride = plane.stride(name)
                if stride is not None:
                    deepest[stride] = name
        return {stride: [view.outlet(name)] for stride, name in deepest.items() if stride > 1}


def _leaves(block: Found) -> Iterator[Found]:
    """The convolutions of a tower, however they were grouped."""
    if not block.parts:
        yield block
    for _, part in block.parts:
        yield from _leaves(part)
