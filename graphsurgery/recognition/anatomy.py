"""Anatomy: backbone, neck and head of a detector, and the tensors that people name by their role."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from functools import cached_property

from .block import RecognisedBlock
from .graph_view import View
from .head_detection import Unit, common, describe
from .pattern import HeadPattern
from .strides import Strides

ROLES = ("p1", "p2", "p3", "p4", "p5", "p6", "p7", "before-sppf", "after-sppf", "neck-outputs", "stage-ends")
_PYRAMID = re.compile(r"p([1-7])")
_POOLING = ("SPPF", "SPP")
_TOWER = ("Conv", "DWConv", "LightConv", "Concat", "RepConv")
"""blocks that a head consists of in front of its exits from the image plane"""
_ENCODERS = ("AIFI",)
_ENLARGING = frozenset({"Resize", "ConvTranspose", "DepthToSpace"})
_CHOOSING = frozenset({"TopK", "GridSample"})
_GATING = frozenset({"Sigmoid", "HardSigmoid"})
_NO_STAGE = frozenset(
    {"Transpose", "Reshape", "Pad", "Split", "Slice", "MaxPool", "AveragePool", "BatchNormalization"}
    | {"LayerNormalization"}
)
"""nodes that end no stage: they prepare what comes next"""


class Anatomy:
    """What belongs where, in one model. Works on units: recognised blocks, and single nodes that are in none."""

    def __init__(
        self, view: View, plane: Strides, blocks: Sequence[RecognisedBlock], heads: Sequence[HeadPattern]
    ) -> None:
        self._view = view
        self._plane = plane
        self._order = view.place
        self._unit: dict[int, RecognisedBlock] = {}
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
            if any(plane.is_in(name) for name in outputs) or any(
                c in found for n in outputs for c in view.consumers(n)
            ):
                found.add(position)
        return found

    @cached_property
    def _exits(self) -> list[str]:
        """Tensors in the plane that are read by what never comes back into it, or that are outputs of the model.

        A mean over the whole map is the exit of a classifier, and none of these.
        """
        view, plane = self._view, self._plane
        found = []
        for position in view.order:
            for name in view.outputs(position):
                leaves = any(r not in self._returns and not self._takes_the_mean(r) for r in view.consumers(name))
                if plane.is_in(name) and (leaves or (view.is_output(name) and not view.consumers(name))):
                    found.append(name)
        return found

    @cached_property
    def _leaving(self) -> frozenset[str]:
        return frozenset(self._exits)

    def _takes_the_mean(self, position: int) -> bool:
        return any(self._plane.is_pooled(name) for name in self._view.outputs(position))

    @cached_property
    def _head_nodes(self) -> set[int]:
        """Nodes in the plane in front of the exits that serve nothing else: the towers of a head."""
        if len(self._exits) < 2 and not self._many_maps:
            return set()
        units = [self._tower_unit(position) for position in sorted(self._serving_exits, key=self._order.__getitem__)]
        strides = len({self._plane.origin(name) for name in self._exits})
        head = {position for unit in common(units, strides) for position in unit.nodes}
        made = {name for p in head for name in self._view.outputs(p)}
        feeding = {name for p in head for name in self._view.inputs(p)} - made
        for root in self._exits:
            if root not in made:
                head |= self._side_branch(root, head, feeding)
        return head

    @cached_property
    def _has_queries(self) -> bool:
        """Whether a decoder reads maps of several strides as they are, without a convolution of its own."""
        strides = {self._plane.origin(name) for name in self._exits}
        chosen = {self._view.op(p) for p in self._view.active if p not in self._returns} & _CHOOSING
        return len(strides) > 1 and bool(chosen)

    @cached_property
    def _serving_exits(self) -> set[int]:
        """The last nodes of all units in front of the exits that could be in a tower and serve nothing else."""
        taken: set[int] = set()
        found: set[int] = set()
        pending = list(self._exits)
        while pending:
            root = pending.pop()
            position = self._view.producer(root)
            if position is None or position not in self._view.active or position in taken:
                continue
            nodes, entries = self._extent(position)
            if not self._in_tower(position) or not self._serves_only(nodes, taken):
                continue
            taken |= nodes
            found.add(max(nodes, key=self._order.__getitem__))
            pending += entries
        return found

    def _tower_unit(self, position: int) -> Unit:
        view, block = self._view, self._unit.get(position)
        nodes, entries = self._extent(position)
        sources = (view.producer(name) for name in entries)
        return Unit(
            place=self._order[position],
            nodes=nodes,
            kind=describe(block, view.op(position)),
            level=self._plane.origin(view.outputs(position)[0]),
            leaves=not self._leaving.isdisjoint(view.outputs(position)),
            sources=tuple(self._last(source) for source in sources if source is not None),
            convolution=block,
        )

    def _last(self, position: int) -> int:
        """The place of the last node of the unit that a node is in."""
        block = self._unit.get(position)
        return max(self._order.get(p, -1) for p in (block.nodes if block is not None else (position,)))

    def _side_branch(self, root: str, head: set[int], feeding: Set[str]) -> set[int]:
        """What makes a tensor from nothing but the maps that the head reads, without thinning them out: masks."""
        view, taken, pending = self._view, set[int](), [root]
        while pending:
            name = pending.pop()
            position = view.producer(name)
            if name in feeding or position in taken:
                continue
            if position is None or position not in view.active:
                return set()
            nodes, entries = self._extent(position)
            strides = [self._plane.origin(entry) for entry in entries]
            here = self._plane.origin(name)
            if here is None or any(stride is None or stride < here for stride in strides):
                return set()
            taken |= nodes
            pending += entries
        return taken if self._serves_only(frozenset(taken), head) else set()

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
            sums = self._view.op(position) == "Add" and len(self._view.inputs(position)) > 1
            return not sums and self._view.op(position) not in ("Resize", "MaxPool", "AveragePool")
        if (
            block.type == "InvertedResidual"
        ):  # what a tower of YOLO11 looks like: 1x1, depthwise, and the last 1x1 without activation
            last = self._view.producer(block.root)
            return not self._view.is_output(block.root) and (last is None or self._view.op(last) != "Add")
        return block.type in _TOWER and block.facts.get("stride", (1, 1)) == (1, 1)

    def _serves_only(self, nodes: frozenset[int], taken: set[int]) -> bool:
        """Whether all that reads these nodes is the head."""
        view = self._view
        for position in nodes:
            for name in view.outputs(position):
                for reader in view.consumers(name):
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
        if not head and not self._has_queries:
            return []
        leaving = {name for name in self._exits if any(reader not in self._returns for reader in view.consumers(name))}
        read = {name for p in head for name in view.inputs(p)} | leaving
        made = {name for p in head for name in view.outputs(p)}
        return sorted(read - made, key=lambda name: self._order.get(view.producer(name) or -1, -1))

    def _detection_head(self, nodes: set[int]) -> Iterator[RecognisedBlock]:
        if not self._feeding:
            return
        bare = not any(block.nodes <= nodes for block in self._found)  # then only what tells a decoder makes it a head
        kinds = {self._view.op(position) for position in nodes}
        for pattern in self._heads if not bare or self._has_queries else ():
            groups = [{group} if isinstance(group, str) else set(group) for group in pattern.has]
            if all(kinds & group for group in groups) and not kinds & set(pattern.lacks):
                outputs = [name for p in nodes for name in self._view.outputs(p) if self._view.is_output(name)]
                last = max(outputs, key=lambda name: self._order.get(self._view.producer(name) or -1, -1), default="")
                inner = [leaf for block in self._found if block.nodes <= nodes for leaf in _leaves(block)]
                parts = tuple((f"tower.{i}", block) for i, block in enumerate(inner))
                entries = tuple(self._feeding)
                yield RecognisedBlock(
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
        """What is behind an enlarged map or an encoder layer and not the head, and what leads only there."""
        if not self._exits:
            return set()  # a classifier
        neck = self._behind_enlarged(head, set())
        served = head | neck
        for position in reversed(self._view.order) if neck else ():
            if position in served:
                continue
            nodes, _ = self._extent(position)
            last = max(nodes, key=self._order.__getitem__)
            readers = {reader for name in self._view.outputs(last) for reader in self._view.consumers(name)}
            if not readers or not readers <= served:
                continue
            served |= nodes
            if self._is_projection(position) and (readers <= head | neck or self._is_lateral(position, readers & neck)):
                neck |= nodes
        return self._behind_enlarged(head, neck)

    def _behind_enlarged(self, head: set[int], neck: set[int]) -> set[int]:
        """A neck, and all that is behind it or behind what makes the network's maps larger."""
        view, found, convolved = self._view, set(neck), set[int]()
        for position in view.order:
            block = self._unit.get(position)
            sources = {view.producer(name) for name in view.inputs(position)}
            if (block is not None and block.facts.get("kernel")) or sources & convolved or (block and block.parts):
                convolved.add(position)
            starts = self._enlarges(position) and bool(sources & convolved)
            starts = starts or (block is not None and block.type in _ENCODERS)
            if position not in head and (starts or sources & found):
                found |= block.nodes if block is not None else {position}
        return found

    def _enlarges(self, position: int) -> bool:
        """Whether a node makes a map larger, other than for a gate."""
        view = self._view
        if view.op(position) not in _ENLARGING:
            return False
        readers = [r for name in view.outputs(position) for r in view.consumers(name)]
        return not readers or any(view.op(reader) not in _GATING for reader in readers)

    def _is_projection(self, position: int) -> bool:
        block = self._unit.get(position)
        facts = block.facts if block is not None and block.type == "Conv" else {}
        return facts.get("kernel") == (1, 1) and facts.get("stride") == (1, 1)

    def _is_lateral(self, position: int, in_neck: Set[int]) -> bool:
        """Whether a projection is the beginning of an FPN, though maps that are not in the neck yet hang on it."""
        return bool(in_neck) and self._unit[position].facts.get("activation") is None

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
            if position not in self._unit and view.op(position) in _NO_STAGE:
                continue
            for name in view.outputs(position):
                stride = plane.stride(name)
                if stride is not None:
                    deepest[stride] = name
        return {stride: [view.outlet(name)] for stride, name in deepest.items() if stride > 1}


def _leaves(block: RecognisedBlock) -> Iterator[RecognisedBlock]:
    """The convolutions of a tower, however they were grouped."""
    if not block.parts:
        yield block
    for _, part in block.parts:
        yield from _leaves(part)
