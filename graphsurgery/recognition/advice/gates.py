"""Gates: what is computed only to be multiplied with something: the inside of another attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from enum import IntEnum
from functools import cached_property

from ..blocktree import BlockTree
from .functions import POINTWISE

_GATES = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Tanh"})
_FUSED = ("sigmoid", "hardsigmoid", "tanh")
"""activations of a convolution that onnxruntime has taken them into"""
_SHAPING = frozenset(
    {"Reshape", "Transpose", "Expand", "Unsqueeze", "Squeeze", "Flatten", "Slice", "Split", "Gather", "Resize"}
)
"""what brings a gate to the shape of the map that it is multiplied with"""
_LARGEST = 30
"""nodes between a tensor and the product: the spatial branch of CBAM has 5, SiLU and normalisation counted out"""
_MOST_LEARNED = 6
"""convolutions among them: the large selective kernel has as many"""
_RUN = 6
"""nodes upstream of a tensor that tell whether it is a gate"""
_LEARNED = frozenset({"Conv", "ConvTranspose", "FusedConv", "NhwcFusedConv", "ConvInteger", "MatMul", "Gemm"})


class _Level(IntEnum):
    """How far a tensor is a gate."""

    NONE = 0
    CLIPPED = 1
    """by more than 1, such as by 6: a gate once it is divided by that"""
    GATE = 2


class Gates:
    """The gates of one model."""

    def __init__(self, tree: BlockTree) -> None:
        self._tree = tree
        self._view = tree.view

    def product(self, root: str) -> str | None:
        """The product of a map with the gate that a tensor serves, where it serves nothing else."""
        if not self._gated or root in self._leaving:
            return None
        view, pending, products = self._view, [root], dict[str, int]()
        derived = {root: self._beginning(root)}
        looked_at = learned = 0
        while pending:
            name = pending.pop(0)
            consumers = view.consumers(name)
            if not consumers or view.is_output(name):
                return None
            for node_index in consumers:
                if self._multiplies(node_index, derived):
                    products[view.outputs(node_index)[0]] = node_index
                    continue
                looked_at += 1
                learned += view.op(node_index) in _LEARNED
                if looked_at > _LARGEST or learned > _MOST_LEARNED:
                    return None
                made = self._level(node_index, derived[name])
                for output in view.outputs(node_index):
                    if output not in derived:
                        pending.append(output)
                    derived[output] = max(made, derived.get(output, made))
        with_another = all(self._multiplies(node_index, derived) for node_index in products.values())
        return next(iter(products)) if with_another and products and all(map(self.is_computed_with, products)) else None

    def _multiplies(self, node_index: int, derived: Mapping[str, _Level]) -> bool:
        """Whether a node multiplies a gate with what is not made of the same tensor."""
        own = derived.keys() & self._view.inputs(node_index) if node_index in self._gated else ()
        return len(own) == 1 and derived[next(iter(own))] is _Level.GATE

    def _level(self, node_index: int, before: _Level) -> _Level:
        """How far what a node gives is a gate, from how far what it reads is."""
        view, op = self._view, self._view.op(node_index)
        if op in _GATES:
            return _Level.GATE
        if op == "Clip":
            highest = view.given(node_index, 2) or (view.number(node_index, "max"),)
            return _Level.GATE if highest[0] is not None and highest[0] <= 1 else _Level.CLIPPED
        if op in _LEARNED:
            leaf = self._tree.innermost(node_index)
            fused = leaf is not None and leaf.facts.get("activation") in _FUSED
            return _Level.GATE if fused else _Level.NONE
        if op in ("Mul", "Div") and len(view.inputs(node_index)) == 1 and before is not _Level.NONE:
            return _Level.GATE
        kept = op in _SHAPING or (op in POINTWISE and len(set(view.inputs(node_index))) == 1)
        return before if kept else _Level.NONE

    @cached_property
    def _gated(self) -> set[int]:
        """The nodes that give a map multiplied with a gate of another tensor than itself, of which SiLU has one."""
        view, found = self._view, set[int]()
        for node_index in view.order:
            if view.op(node_index) != "Mul" or len(set(names := view.inputs(node_index))) != 2:
                continue
            is_gated = any(self._gates(name, other) for name, other in (names, names[::-1]))
            if is_gated and self._tree.is_map(view.outputs(node_index)[0]):
                found.add(node_index)
        return found

    @cached_property
    def _leaving(self) -> set[str]:
        """The tensors from which a path leads past every product with a gate, so that they serve something else, too:
        to an output of the model or to what nothing reads.
        """
        view, found = self._view, set[str]()
        for node_index in reversed(view.order):
            for name in view.outputs(node_index):
                if self._leaves(name, found):
                    found.add(name)
        return found.union(name for name in view.index.free_inputs if self._leaves(name, found))

    def _leaves(self, name: str, leaving: Set[str]) -> bool:
        """The same of one tensor, where it is known of what is made of it."""
        view, consumers = self._view, self._view.consumers(name)
        return (
            not consumers
            or view.is_output(name)
            or any(p not in self._gated and not leaving.isdisjoint(view.outputs(p)) for p in consumers)
        )

    def _gates(self, name: str, other: str) -> bool:
        """Whether a tensor is a gate for another one, and more than a function of it at each position."""
        view, source, run = self._view, name, self._run(name)
        for node_index in run:
            if view.op(node_index) not in POINTWISE:
                return self._after(run) is _Level.GATE
            source = view.inputs(node_index)[0]
        return bool(run) and source != other and self._after(run) is _Level.GATE

    def _beginning(self, root: str) -> _Level:
        """How far a tensor is a gate by the nodes that it is made by."""
        return self._after(self._run(root))

    def _after(self, run: Sequence[int]) -> _Level:
        """The same for these nodes, the last first."""
        level = _Level.NONE
        for node_index in reversed(run):
            level = self._level(node_index, level)
        return level

    def _run(self, root: str) -> list[int]:
        """The nodes upstream of a tensor, as far as each reads one value; the last may read more."""
        view, found = self._view, list[int]()
        while (node_index := view.producer(root)) is not None and node_index in view.active and len(found) < _RUN:
            found.append(node_index)
            if len(view.inputs(node_index)) != 1:
                break
            root = view.inputs(node_index)[0]
        return found

    def is_computed_with(self, root: str) -> bool:
        """Whether something learned reads a tensor, or what is made of it: no score of a head."""
        return not self._leading.isdisjoint(self._view.consumers(root))

    @cached_property
    def _leading(self) -> set[int]:
        """The nodes that are learned, or have one that is downstream."""
        view, found = self._view, set[int]()
        for node_index in reversed(view.order):
            learned = view.op(node_index) in _LEARNED and view.weight_shape(node_index) is not None
            if learned or not found.isdisjoint(view.downstream(node_index)):
                found.add(node_index)
        return found
