"""Anatomy: backbone, neck and head of a detector, and the tensors that people name by their role."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from functools import cached_property

from .block import RecognisedBlock
from .boundary import Backbone, Boundary
from .enlarging import downstream_of_enlarged
from .extent import Extent, extents
from .graph_view import View
from .head_detection import Unit, convolutions, describe, head_units
from .input_images import CONVOLUTIONS
from .pattern import HeadPattern
from .prediction import predict
from .pyramid import PYRAMID, Parts, Pyramid
from .stage_end import Reading
from .strides import Strides
from .tokens import is_patch_embedding

ROLES = (*PYRAMID[:-2], "before-sppf", "after-sppf", *PYRAMID[-2:])
_POOLING = ("SPPF", "SPP")
_TOWER = ("Conv", "DWConv", "LightConv", "Concat", "RepConv")
"""blocks that a head consists of upstream of its exits from the image plane"""
_NOT_IN_A_TOWER = frozenset({"Resize", "MaxPool", "AveragePool"})
_COMPARING = frozenset({"Equal", "GreaterOrEqual", "LessOrEqual", "Sub"})
_CHOOSING = frozenset({"TopK", "GridSample"})


class Anatomy:
    """What belongs where, in one model."""

    def __init__(
        self, view: View, strides: Strides, blocks: Sequence[RecognisedBlock], heads: Sequence[HeadPattern]
    ) -> None:
        self._view = view
        self._strides = strides
        self._found = blocks
        self._heads = heads
        self._extents = extents(view, blocks)
        self._backbones: list[Backbone] = []
        head = self._towers
        if self._feeding or self._answers:
            head = head | (view.active - self._upstream_of_maps)  # the decoding
        neck = self._neck_nodes(head)
        self._role_of = {p: "head" if p in head else "neck" if p in neck else "backbone" for p in view.active}
        detection = list(self._detection_head(head))
        held = frozenset[int]().union(*(block.nodes for block in detection))
        self.blocks = [
            *(b.labelled(b.parts, b.path, self._role_of[min(b.nodes)]) for b in blocks if b.nodes.isdisjoint(held)),
            *detection,
        ]

    def role(self, name: str) -> list[str]:
        """The tensors of a role, in the order of the graph. KeyError for a role that does not exist."""
        if name not in ROLES:
            raise KeyError(name)
        if "sppf" not in name:
            return self._pyramid.role(name)
        pools = [block for block in self.blocks if block.type in _POOLING]
        if name == "after-sppf":
            return [block.output for block in pools]
        return [self._view.outlet(entry) for block in pools for entry in block.entries]

    def readings(self, name: str) -> list[Reading]:
        """The maps of which one has a role, where structure does not tell which."""
        return self._pyramid.readings(name)

    @cached_property
    def _pyramid(self) -> Pyramid:
        parts = Parts(self._view, self._strides, self._extents, self._role_of)
        return Pyramid(parts, self._backbones, self._feeding, self._exit_strides)

    def of_node(self, node_index: int) -> str | None:
        """backbone, neck or head; None for nodes that work on sizes or constants only."""
        return self._role_of.get(node_index)

    # ------------------------------------------------------------------ the head

    @cached_property
    def _upstream_of_maps(self) -> set[int]:
        """The nodes that produce a feature map, or have one downstream."""
        view, found = self._view, set[int]()
        for node_index in reversed(view.order):
            if any(map(self._strides.is_in, view.outputs(node_index))) or found & view.downstream(node_index):
                found.add(node_index)
        return found

    def _is_left_at(self, tensor: str, *, for_means: bool) -> bool:
        """Whether nodes consume a tensor that never lead back to the image plane."""
        view = self._view
        return any(
            consumer not in self._upstream_of_maps
            and (for_means or not any(self._strides.is_pooled(name) for name in view.outputs(consumer)))
            for consumer in view.consumers(tensor)
        )

    @cached_property
    def _exits(self) -> dict[str, None]:
        """Feature maps that are consumed by what never leads back to the image plane, or are outputs of the model.

        A mean over the whole map is the exit of a classifier, and none of these.
        """
        view = self._view
        maps = (name for p in view.order for name in view.outputs(p) if self._strides.is_in(name))
        return dict.fromkeys(
            name
            for name in maps
            if self._is_left_at(name, for_means=False) or (view.is_output(name) and not view.consumers(name))
        )

    @cached_property
    def _exit_strides(self) -> int:
        """At how many strides there are exits."""
        return len({self._strides.origin(name) for name in self._exits})

    @cached_property
    def _towers(self) -> set[int]:
        """The nodes upstream of the exits that serve nothing else."""
        view = self._view
        if len(self._exits) < 2 and not any(view.op(p) == "Resize" for p in view.active):
            return set()
        candidates = sorted(self._serving_exits, key=view.place.__getitem__)
        units = head_units([self._unit(self._extents[p]) for p in candidates], self._exit_strides)
        head = {node_index for unit in units for node_index in unit.nodes}
        produced, feeding = self._borders(head)
        for root in self._exits:
            if root not in produced:
                head |= self._side_branch(root, head, feeding)
        return head

    def _borders(self, nodes: Set[int]) -> tuple[set[str], set[str]]:
        """What nodes produce, and what they consume that others produce."""
        produced = {name for p in nodes for name in self._view.outputs(p)}
        return produced, {name for p in nodes for name in self._view.inputs(p)} - produced

    @cached_property
    def _has_queries(self) -> bool:
        """Whether a decoder reads maps of several strides as they are, without a convolution of its own."""
        decoding = self._view.active - self._upstream_of_maps
        return self._exit_strides > 1 and any(self._view.op(p) in _CHOOSING for p in decoding)

    @cached_property
    def _samples_one_map(self) -> bool:
        """Whether a decoder samples the only map that leaves the plane."""
        decoding = self._view.active - self._upstream_of_maps
        return self._exit_strides == 1 and any(self._view.op(p) == "GridSample" for p in decoding)

    @property
    def _has_tokens(self) -> bool:
        """Whether a transformer reads the last map as tokens."""
        decoding = self._view.active - self._upstream_of_maps
        return self._exit_strides == 1 and any(self._view.op(p) == "Softmax" for p in decoding)

    @cached_property
    def _serving_exits(self) -> set[int]:
        """The last nodes of all blocks and single nodes upstream of the exits that serve nothing else."""
        taken: set[int] = set()
        found: set[int] = set()
        pending = list(self._exits)
        while pending:
            extent = self._extents.get(self._producer(pending.pop()))
            if extent is None or not taken.isdisjoint(extent.nodes):
                continue
            if self._can_be_in_a_tower(extent) and self._serves_only(extent.nodes, taken):
                taken |= extent.nodes
                found.add(extent.last)
                pending += extent.entries
        return found

    def _unit(self, extent: Extent) -> Unit:
        view = self._view
        outputs = view.outputs(extent.last)
        sources = [self._producer(name) for name in extent.entries]
        return Unit(
            place=view.place[extent.last],
            nodes=extent.nodes,
            kind=describe(extent.block, view.op(extent.last)),
            level=self._strides.origin(outputs[0]),
            leaves=not self._exits.keys().isdisjoint(outputs),
            sources=tuple(view.place[self._extents[p].last] for p in sources if p in view.place),
            convolution=extent.block if convolutions(extent.block) else None,
        )

    def _side_branch(self, root: str, head: set[int], feeding: Set[str]) -> set[int]:
        """What computes a tensor from nothing but the maps that the head reads, none of them finer: masks."""
        taken, pending = set[int](), [root]
        while pending:
            name = pending.pop()
            node_index = self._producer(name)
            if name in feeding or node_index in taken:
                continue
            extent, stride = self._extents.get(node_index), self._strides.origin(name)
            if extent is None or stride is None:
                return set()
            sources = [self._strides.origin(entry) for entry in extent.entries]
            if any(source is None or source < stride for source in sources):
                return set()
            taken |= extent.nodes
            pending += extent.entries
        return taken if self._serves_only(taken, head) else set()

    def _can_be_in_a_tower(self, extent: Extent) -> bool:
        view, block = self._view, extent.block
        op = view.op(extent.last)
        if block is None and op == "MaxPool":
            return self._is_compared(extent)
        if block is None:
            return op not in _NOT_IN_A_TOWER and (op != "Add" or len(extent.entries) < 2)
        if block.type == "InvertedResidual":
            # what a tower of YOLO11 looks like: 1x1, depthwise, and the last 1x1 without activation
            return not view.is_output(block.root) and op != "Add"
        return block.type in _TOWER and extent.fact("stride") in (None, (1, 1))

    def _is_compared(self, pool: Extent) -> bool:
        """Whether a pooling is compared with what it reads: the peaks of a map of scores (CenterNet)."""
        view = self._view
        comparing = [p for p in view.downstream(pool.last) if view.op(p) in _COMPARING]
        return any(set(pool.entries) <= set(view.inputs(p)) for p in comparing)

    def _serves_only(self, nodes: Set[int], others: Set[int]) -> bool:
        """Whether all that consumes what nodes produce is among them or others, or downstream of all maps."""
        consumers = set[int]().union(*map(self._view.downstream, nodes))
        return (consumers & self._upstream_of_maps) - nodes <= others

    @cached_property
    def _feeding(self) -> list[str]:
        """The maps that the head reads, in the order of the graph."""
        if not (self._towers or self._has_queries or self._samples_one_map):
            return []
        produced, read = self._borders(self._towers)
        read |= {name for name in self._exits if self._is_left_at(name, for_means=True)} - produced
        return sorted(read, key=lambda name: (self._place(name), name))

    @cached_property
    def _answers(self) -> list[str]:
        """The maps that a transformer reads as tokens and answers with boxes: that of a DETR, not of a classifier."""
        if self._feeding or not self._has_tokens:
            return []
        decoding = self._view.active - self._upstream_of_maps
        convolved = sum(self._view.op(p) in CONVOLUTIONS for p in self._view.active - decoding)
        # behind a single convolution, the patches of a ViT, the tokens are the whole network
        return list(self._exits) if convolved > 1 and predict(self._view, decoding).boxes else []

    def _detection_head(self, nodes: Set[int]) -> Iterator[RecognisedBlock]:
        view, inner = self._view, [block for block in self._found if block.nodes <= nodes]
        entries = self._feeding or self._answers
        # without a convolution of its own, only what shows a decoder makes it a head
        if not entries or not (inner or self._has_queries or self._answers):
            return
        strides = {self._strides.stride(name) for name in self._exits if self._producer(name) in nodes}
        prediction = predict(view, nodes, strides)
        pattern = next((pattern for pattern in self._heads if pattern.fits(prediction)), None)
        if pattern is not None:
            last = max(prediction.outputs, key=self._place, default="")
            leaves = [leaf for block in inner for leaf in block.everything() if not leaf.parts]
            yield RecognisedBlock(
                type=pattern.name,
                aliases=pattern.aliases,
                entries=tuple(entries),
                output=last,
                nodes=frozenset(nodes),
                parts=tuple((f"tower.{i}", leaf) for i, leaf in enumerate(leaves)),
                facts=pattern.facts,
                root=last,
                role="head",
            )

    def _producer(self, tensor: str) -> int:
        """The index of the node that produces a tensor; -1 for an input of the model."""
        return self._view.index.producer.get(tensor, -1)

    def _place(self, tensor: str) -> int:
        """The place in the order of the graph of the node that produces a tensor."""
        return self._view.place.get(self._producer(tensor), -1)

    # ------------------------------------------------------------------ the neck

    def _neck_nodes(self, head: Set[int]) -> set[int]:
        """What is downstream of an enlarged map or an encoder layer and not the head, and what leads only there."""
        if not self._exits:
            return set()  # a classifier
        view = self._view
        neck = downstream_of_enlarged(view, self._strides, self._extents) - head
        given = [root for root in self._feeding if self._producer(root) in neck]
        boundary = Boundary(view, self._strides, self._extents, head | neck, given)
        if sources := self._deepest(neck, boundary):
            # where no neck is, a head reads the backbone itself
            of_head = bool(self._feeding) and not neck and not self._samples_one_map
            self._backbones.append(boundary.find(sources, of_head=of_head, strides=self._exit_strides))
        if not self._backbones:
            return neck
        backbone = set[int]().union(*(each.nodes for each in self._backbones))
        served = head | neck
        for node_index in reversed(view.order):
            if node_index not in served and node_index not in backbone and view.downstream(node_index) & served:
                neck |= self._extents[node_index].nodes
                served |= self._extents[node_index].nodes
        return neck

    def _deepest(self, neck: Set[int], boundary: Boundary) -> list[str]:
        """The deepest maps of the backbone, or what something else makes of them first."""
        if neck:
            firsts = {
                extent.last: extent
                for extent in map(self._extents.__getitem__, neck)
                if not any(self._producer(entry) in neck for entry in extent.entries)
            }
            entries = dict.fromkeys(entry for last in sorted(firsts) for entry in firsts[last].entries)
            maps = [entry for entry in entries if self._strides.is_in(entry)]
        elif self._feeding:
            maps = [boundary.last_before_extras(self._feeding)]
        elif self._answers:
            maps = [name for name in self._exits if not is_patch_embedding(self._view, self._strides, name)]
        else:
            maps = []
        deepest = max((origin for name in maps if (origin := self._strides.origin(name))), default=None)
        return [name for name in maps if self._strides.origin(name) == deepest]
