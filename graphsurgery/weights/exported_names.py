"""Which parameter of which module an initializer is, in a graph that an exporter wrote.

Exporters keep the names of most parameters. Those that they compute anew (a weight with a BatchNorm folded into it, a
transposed one) have names that tell nothing; the node that consumes them tells its module instead, by its own name
(TorchScript) or by its metadata (dynamo), and the operator tells the parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import numpy as np
import onnx

from ..feature_map import Array
from ..graph.module_paths import from_name, from_weights
from ..modelfile.operators import operator
from ..modelfile.wire import text
from . import exported_attention
from .exported_graph import RESHAPING, ExportedGraph, named_by_exporter

BATCH_NORM = "BatchNormalization"
_NORMS = frozenset({"InstanceNormalization", "GroupNormalization", "LayerNormalization"})
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_PARTS = {
    "MatMul": ("weight", "weight"),  # which of the two it is is seen from what is an initializer
    **dict.fromkeys(_NORMS | _LINEAR - {"MatMul"} | {"PRelu"}, ("", "weight", "bias")),
    BATCH_NORM: ("", "weight", "bias", "running_mean", "running_var"),
}
"""operator -> the parameters of the PyTorch layer that it was exported from, by input"""
_AGAIN = re.compile(r"_\d+$")


class Export:
    """What a graph tells of its modules' parameters beyond their names. Payloads are read for what has to be compared
    only.
    """

    def __init__(self, graph: ExportedGraph) -> None:
        self.found: dict[str, Callable[[], Array]] = {}
        """key in a state_dict -> its values"""
        self.spare: set[str] = set()
        """keys, and names of initializers, that are nothing of their own: what they hold has another key, or none"""
        self.unbiased: set[str] = set()
        """paths of convolutions and linear layers that have no bias: they had none, or only zeros"""
        self._graph = graph
        self._nodes, self._path_of = graph.index.nodes, graph.tree.of_node
        self._of: dict[str, str] = {}
        """key -> the initializer that it is"""
        self._disputed: set[str] = set()
        self._outer = {path.rpartition(".")[0] for path in graph.tree.modules}
        for name in graph.index.producer:
            if (source := graph.source(name)) and not named_by_exporter(name):
                self.found[name] = partial(graph.tensor, source)
        taken: set[int] = set()
        for kind, read in (("Softmax", self._attention), ("InstanceNormalization", self._group_norm)):
            for node_index, node in enumerate(self._nodes):
                if operator(node) == kind:
                    taken |= read(node_index)
        for node_index, node in enumerate(self._nodes):
            if node_index not in taken and (path := self._path(node_index)):
                self._layer(node_index, node, path)
        self._repeated()
        self.spare |= {name for name in graph.floats if named_by_exporter(name)}

    # ------------------------------------------------------------------ one node, one layer

    def _layer(self, node_index: int, node: onnx.NodeProto, path: str) -> None:
        stored = operator(node) == "Gemm" and any(each.name == "transB" and each.i for each in node.attribute)
        transposed = operator(node) in ("Gemm", "MatMul") and not stored
        for part, name in zip(_PARTS.get(operator(node), ()), node.input, strict=False):
            if part:
                self._add(f"{path}.{part}", name, transposed=transposed and part == "weight")
                if operator(node) in _NORMS and self._graph.is_constant(name, float(part == "weight")):
                    self.spare.add(f"{path}.{part}")  # of a norm without parameters, perhaps
        if operator(node) == "MatMul" and any(map(self._graph.source, node.input)):
            self._bias_after(node, path)
        elif (
            operator(node) != "MatMul" and operator(node) in _LINEAR and len([name for name in node.input if name]) < 3
        ):
            self.unbiased.add(path)

    def _path(self, node_index: int) -> str:
        """The module that a node belongs to. Where it is not the layer itself, a weight that kept its name tells the
        layer: before a BatchNorm that was folded, or of a module that uses the weights of one inside it.
        """
        node, path = self._nodes[node_index], self._path_of[node_index]
        if not path:
            return from_weights(node, self._graph.floats)
        if operator(node) not in _LINEAR:
            return path
        own = next((name.removesuffix(".weight") for name in node.input[1:2] if name.endswith(".weight")), "")
        module = self._graph.tree.modules.get(path)
        if module is not None and "BatchNorm" in (module.type or ""):
            return own
        return own if own.startswith(f"{path}.") else path

    def _bias_after(self, node: onnx.NodeProto, path: str) -> None:
        consumers = self._graph.index.downstream(node.output[:1])
        added = [self._nodes[p] for p in consumers if operator(self._nodes[p]) == "Add" and self._path_of[p] == path]
        for name in added[0].input if added and len(consumers) == 1 else ():
            self._add(f"{path}.bias", name)
        if not added:
            self.unbiased.add(path)

    def _add(self, key: str, name: str, *, transposed: bool = False, flat: bool = False) -> None:
        """Note that an initializer is a parameter. The second call of a module claims what the first has; where two
        layers of one module claim the same key for different values, neither has it.
        """
        if not (source := self._graph.source(name)):
            return
        if name != key:
            self.spare.add(name if named_by_exporter(name) else key)
        if key.rpartition(".")[0] in self._outer:  # a product of the module's own, no layer
            self.spare.add(key)
        if key in self._graph.floats or key in self._disputed:
            return

        def value() -> Array:
            values = self._graph.tensor(source)
            return values.reshape(-1) if flat else values.T if transposed else values

        if key not in self.found:
            self._of[key], self.found[key] = source, value
        elif self._of.get(key) != source and not np.array_equal(self.found[key](), value()):
            self._disputed.add(key)
            del self.found[key]

    # ------------------------------------------------------------------ several nodes, one layer

    def _group_norm(self, node_index: int) -> set[int]:
        """A GroupNorm: groups normalised with scale 1 and shift 0, then its own scale and shift for every channel."""
        path, node = self._path_of[node_index], self._nodes[node_index]
        plain = path and all(map(self._graph.is_constant, node.input[1:3], (1.0, 0.0)))
        at = self._graph.only_consumer(node_index) if plain else None
        parts: dict[str, str] = {}
        while at is not None and self._path_of[at] == path:
            step = self._nodes[at]
            part = {"Mul": "weight", "Add": "bias"}.get(operator(step))
            name = next(filter(self._graph.source, step.input), "")
            if part and name and part not in parts:
                parts[part] = name
            elif part or operator(step) not in RESHAPING:
                break
            at = self._graph.only_consumer(at)
        for part, name in parts.items():
            self._add(f"{path}.{part}", name, flat=True)
        return {node_index} if parts else set()

    def _attention(self, softmax: int) -> set[int]:
        """A MultiheadAttention, whose q, k and v have a third each of the rows of one parameter."""
        layers, path = exported_attention.projections(self._graph, softmax), self._path_of[softmax]
        parts = {"weight": [each.weight for each in layers], "bias": [each.bias for each in layers]}
        for part, rows in parts.items() if layers else ():
            if (key := f"{path}.in_proj_{part}") not in self._graph.floats:
                self.found[key] = lambda rows=rows: np.concatenate([each() for each in rows])  # type: ignore[misc]
        if not any(each.biased for each in layers):  # it may have none, or one of zeros
            self.spare.add(f"{path}.in_proj_bias")
        return {each.node_index for each in layers}

    # ------------------------------------------------------------------ modules that are called more than once

    def _repeated(self) -> None:
        """TorchScript calls the second use of fc1 fc1_1, which may also be the name of a module: then it has values of
        its own.
        """
        names = {path: text(node.name) or "" for path, node in zip(self._path_of, self._nodes, strict=True)}
        known = self.found | self._graph.floats
        for key, value in self.found.items():
            path, _, part = key.rpartition(".")
            for first in _first_calls(names.get(path, "")):
                earlier = known.get(f"{first}.{part}") if first != path else None
                if earlier is not None and np.array_equal(value(), earlier()):
                    self.spare.add(key)


def _first_calls(name: str) -> Iterator[str]:
    """What a node's module may be called where it is called first: each scope with and without a number after it."""
    scopes = name.split("/")
    choices = [(scope, _AGAIN.sub("", scope)) if _AGAIN.search(scope) else (scope,) for scope in scopes[:-1]]
    return (from_name("/".join([*choice, scopes[-1]])) for choice in product(*choices) if len(choices) < 12)
