"""Which parameter of which module an initializer is, in a graph that an exporter wrote.

Exporters keep the names of most parameters. Those that they compute anew (a weight with a BatchNorm folded into it, a
transposed one) have names that tell nothing; the node that consumes them tells its module instead, by its own name
(TorchScript) or by its metadata (dynamo), and the operator tells the parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import onnx

from ..graph.module_paths import from_name, from_weights
from ..modelfile.wire import text
from . import exported_attention
from .exported_graph import RESHAPING, ExportedGraph, named_by_exporter

Array = np.ndarray[Any, Any]
BATCH_NORM = "BatchNormalization"
_INPUTS: dict[str, tuple[str, ...]] = {
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    BATCH_NORM: ("", "weight", "bias", "running_mean", "running_var"),
    "InstanceNormalization": ("", "weight", "bias"),
    "GroupNormalization": ("", "weight", "bias"),
    "LayerNormalization": ("", "weight", "bias"),
    "PRelu": ("", "weight"),
}
"""Operator -> the parameters of the PyTorch layer that it was exported from."""
_NORMS = frozenset({"InstanceNormalization", "GroupNormalization", "LayerNormalization"})
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_AGAIN = re.compile(r"_\d+$")


@dataclass
class Export:
    """What a graph tells of its modules' parameters beyond their names."""

    found: dict[str, Callable[[], Array]] = field(default_factory=dict)
    """key in a state_dict -> its values"""
    spare: set[str] = field(default_factory=set)
    """keys, and names of initializers, that are nothing of their own: what they hold has another key, or none"""
    unbiased: set[str] = field(default_factory=set)
    """paths of convolutions and linear layers that have no bias: they had none, or only zeros"""


class Reader:
    """Reads the modules' parameters out of one graph."""

    def __init__(self, graph: ExportedGraph) -> None:
        self.graph = graph
        self.export = Export()
        self._of: dict[str, str] = {}
        """key -> the initializer that it is"""
        self._disputed: set[str] = set()
        self._outer = {path.rpartition(".")[0] for path in self.graph.tree.modules}

    def read(self) -> Export:
        """Everything that can be told. Payloads are read for what has to be compared only."""
        for name in self.graph.index.producer:
            if (source := self.graph.source(name)) and not named_by_exporter(name):
                self.export.found[name] = lambda source=source: self.graph.tensor(source)  # type: ignore[misc]
        taken: set[int] = set()
        for node_index, node in enumerate(self.graph.index.nodes):
            if node.op_type == "Softmax":
                taken |= self._attention(node_index)
        for node_index, node in enumerate(self.graph.index.nodes):
            if node.op_type == "InstanceNormalization":
                taken |= self._group_norm(node_index)
        for node_index, node in enumerate(self.graph.index.nodes):
            if node_index not in taken:
                self._layer(node_index, node)
        self._repeated()
        self.export.spare |= {name for name in self.graph.floats if named_by_exporter(name)}
        return self.export

    # ------------------------------------------------------------------ one node, one layer

    def _layer(self, node_index: int, node: onnx.NodeProto) -> None:
        path = self._path(node_index)
        if not path:
            return
        if node.op_type == "MatMul":  # which of the two is the weight is seen from what is an initializer
            for name in filter(self.graph.source, node.input):
                self._add(f"{path}.weight", name, transposed=True)
                self._bias_after(node_index, path)
            return
        plain = node.op_type == "Gemm" and not any(each.name == "transB" and each.i for each in node.attribute)
        for part, name in zip(_INPUTS.get(node.op_type, ()), node.input, strict=False):
            if part:
                self._add(f"{path}.{part}", name, transposed=plain and part == "weight")
                if node.op_type in _NORMS and self.graph.is_constant(name, float(part == "weight")):
                    self.export.spare.add(f"{path}.{part}")  # of a norm without parameters, perhaps
        if node.op_type in _LINEAR and len([name for name in node.input if name]) < 3:
            self.export.unbiased.add(path)

    def _path(self, node_index: int) -> str:
        """The module that a node belongs to. Where it is not the layer itself, a weight that kept its name tells the
        layer: before a BatchNorm that was folded, or of a module that uses the weights of one inside it.
        """
        node, path = self.graph.index.nodes[node_index], self.graph.tree.of_node[node_index]
        if not path:
            return from_weights(node, self.graph.floats)
        if node.op_type not in _LINEAR:
            return path
        own = next((name.removesuffix(".weight") for name in node.input[1:2] if name.endswith(".weight")), "")
        module = self.graph.tree.modules.get(path)
        if module is not None and "BatchNorm" in (module.type or ""):
            return own
        return own if own.startswith(f"{path}.") else path

    def _bias_after(self, node_index: int, path: str) -> None:
        (output,) = self.graph.index.nodes[node_index].output
        consumers = self.graph.index.consumers.get(output, [])
        added = [
            p for p in consumers if self.graph.index.nodes[p].op_type == "Add" and self.graph.tree.of_node[p] == path
        ]
        for consumer in added if len(consumers) == 1 else ():
            for name in self.graph.index.nodes[consumer].input:
                self._add(f"{path}.bias", name)
        if not added:
            self.export.unbiased.add(path)

    def _add(self, key: str, name: str, *, transposed: bool = False, flat: bool = False) -> None:
        """Note that an initializer is a parameter. The second call of a module claims what the first has; where two
        layers of one module claim the same key for different values, neither has it.
        """
        if not (source := self.graph.source(name)):
            return
        if name != key:
            self.export.spare.add(name if named_by_exporter(name) else key)
        if not self._is_leaf(key.rpartition(".")[0]):  # a product of the module's own, no layer
            self.export.spare.add(key)
        if key in self.graph.floats or key in self._disputed:
            return

        def value() -> Array:
            values = self.graph.tensor(source)
            return values.reshape(-1) if flat else values.T if transposed else values

        if key not in self.export.found:
            self._of[key], self.export.found[key] = source, value
        elif self._of.get(key) == source:
            return
        elif not self._same(self.export.found[key](), value()):
            self._disputed.add(key)
            del self.export.found[key]

    def _is_leaf(self, path: str) -> bool:
        return path not in self._outer

    @staticmethod
    def _same(a: Array, b: Array) -> bool:
        return a.shape == b.shape and bool((a == b).all())

    # ------------------------------------------------------------------ several nodes, one layer

    def _group_norm(self, node_index: int) -> set[int]:
        """A GroupNorm: groups normalised with scale 1 and shift 0, then its own scale and shift for every channel."""
        path, node = self.graph.tree.of_node[node_index], self.graph.index.nodes[node_index]
        if not path or not self.graph.is_constant(node.input[1], 1.0) or not self.graph.is_constant(node.input[2], 0.0):
            return set()
        parts: dict[str, str] = {}
        at = self.graph.only_consumer(node_index)
        while at is not None and self.graph.tree.of_node[at] == path:
            step = self.graph.index.nodes[at]
            part = {"Mul": "weight", "Add": "bias"}.get(step.op_type)
            if part is None and step.op_type not in RESHAPING:
                break
            if part is not None:
                names = [name for name in step.input if self.graph.source(name)]
                if not names or part in parts:
                    break
                parts[part] = names[0]
            at = self.graph.only_consumer(at)
        for part, name in parts.items():
            self._add(f"{path}.{part}", name, flat=True)
        return {node_index} if parts else set()

    def _attention(self, softmax: int) -> set[int]:
        """A MultiheadAttention, whose q, k and v have a third each of the rows of one parameter."""
        layers = exported_attention.projections(self.graph, softmax)
        path = self.graph.tree.of_node[softmax]
        for key, parts in (
            (f"{path}.in_proj_weight", [each.weight for each in layers]),
            (f"{path}.in_proj_bias", [each.bias for each in layers]),
        ):
            if layers and key not in self.graph.floats:
                self.export.found[key] = lambda parts=parts: np.concatenate([part() for part in parts])  # type: ignore[misc]
        if not any(each.biased for each in layers):  # it may have none, or one of zeros
            self.export.spare.add(f"{path}.in_proj_bias")
        return {each.node_index for each in layers}

    # ------------------------------------------------------------------ modules that are called more than once

    def _repeated(self) -> None:
        """TorchScript calls the second use of fc1 fc1_1, which may also be the name of a module: then it has values of
        its own.
        """
        names = {self.graph.tree.of_node[p]: text(node.name) or "" for p, node in enumerate(self.graph.index.nodes)}
        for key in self.export.found:
            path, _, part = key.rpartition(".")
            for first in _first_calls(names.get(path, "")):
                values = self._values(f"{first}.{part}") if first != path else None
                if values is not None and self._same(self.export.found[key](), values):
                    self.export.spare.add(key)

    def _values(self, key: str) -> Array | None:
        if key in self.graph.floats:
            return self.graph.tensor(key)
        return self.export.found[key]() if key in self.export.found else None


def _first_calls(name: str) -> Iterator[str]:
    """What a node's module may be called where it is called first: each scope with and without a number after it."""
    scopes = name.split("/")
    choices = [(scope, _AGAIN.sub("", scope)) if _AGAIN.search(scope) else (scope,) for scope in scopes[:-1]]
    return (from_name("/".join([*choice, scopes[-1]])) for choice in product(*choices) if len(choices) < 12)
