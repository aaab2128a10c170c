"""Functions that a graph writes out: hard-swish as Add, Clip, Mul and Div, a LayerNorm, a softmax. Each is one place.

A *function* begins at one tensor and ends at another, the first that everything made of the beginning goes through; in
between are only pointwise operators, reductions, and what brings their results into shape. A single pointwise operator
is the smallest one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from ..graph_view import View

POINTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Neg", "Abs", "Reciprocal", "Erf", "Sign", "Max", "Min"}
    | {"Tanh", "Sigmoid", "HardSigmoid", "Softplus", "Softsign", "Clip", "Where", "Greater", "GreaterOrEqual", "Less"}
    | {"LessOrEqual", "Equal", "Not", "Sin", "Cos", "Sinh", "Cosh", "Atan", "Floor", "Ceil", "Round", "Relu"}
    | {"LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "HardSwish", "Swish", "Gelu", "Mish"}
)
_REDUCING = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"}
    | {"ReduceLogSumExp", "GlobalAveragePool", "GlobalMaxPool"}
)
_NORMALISING = frozenset(
    {"InstanceNormalization", "LayerNormalization", "GroupNormalization", "LpNormalization", "Softmax", "LogSoftmax"}
)
_GATING = frozenset({"Sigmoid", "HardSigmoid"})
_SHAPING = frozenset({"Reshape", "Transpose", "Expand", "Unsqueeze", "Squeeze", "Flatten"})
_WITHIN = POINTWISE | _REDUCING | _NORMALISING | _SHAPING
_NUMBERED = frozenset({"Erf", "Tanh", "Clip", "Min"})
"""operators of the formulas with a number that may stand behind the product"""
_AFFINE = _SHAPING | {"Mul", "Add"}
_MOST_AFFINE = 3
"""nodes: the shape of before, scale, shift"""
_LARGEST = 40
"""nodes; GELU by tanh, multiplied out, has 9, and a GroupNorm 15"""


@dataclass(frozen=True)
class Function:
    """A function that a graph writes out."""

    source: str
    result: str
    nodes: frozenset[int]
    kind: str
    """activation, normalisation, softmax, or an attention that has no weights"""


class Functions:
    """The functions of one graph, each looked for when first asked for."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[str, Function | None] = {}

    def around(self, root: str) -> Function | None:
        """The function that a tensor is inside of, being neither its beginning nor its end."""
        view, seen, pending = self._view, {root}, [root]
        while pending and len(seen) <= _LARGEST:
            node_index = view.producer(pending.pop(0))
            if node_index is None or node_index not in view.active or view.op(node_index) not in _WITHIN:
                continue
            for source in view.inputs(node_index):
                if source in seen:
                    continue
                seen.add(source)
                pending.append(source)
                found = self.of(source)
                if found is not None and found.result != root and view.producer(root) in found.nodes:
                    return found
        return None

    def behind(self, root: str) -> Function | None:
        """The pointwise function that is all that reads a tensor; None where something else does."""
        view = self._view
        consumers = view.consumers(root)
        if not consumers or view.is_output(root):
            return None
        found = self.of(root) if len(consumers) > 1 else self._single(root, consumers[0])
        if found is None or not found.nodes.issuperset(consumers):
            return None
        return found if found.kind == "activation" else None

    def is_one_activation(self, function: Function) -> bool:
        """Whether a pointwise function is a single operator, or x times something that is made of x."""
        view = self._view
        if len(function.nodes) == 1:
            return view.inputs(next(iter(function.nodes))) == [function.source]
        last = max(function.nodes, key=view.place.__getitem__)
        names = view.inputs(last)
        return view.op(last) in ("Mul", "Div") and (len(names) == 1 or len({*names, function.source}) == len(names))

    def of(self, root: str) -> Function | None:
        """The function in which all of a tensor's consumers that compute nothing but with it come together again."""
        if root not in self._known:
            self._known[root] = self._find(root) if len(self._view.consumers(root)) > 1 else None
        return self._known[root]

    def _single(self, root: str, node_index: int) -> Function | None:
        """One pointwise operator that reads nothing else."""
        view, outputs = self._view, self._view.outputs(node_index)
        if view.op(node_index) not in POINTWISE or set(view.inputs(node_index)) != {root} or len(outputs) != 1:
            return None
        return Function(root, outputs[0], frozenset({node_index}), "activation")

    def _find(self, source: str) -> Function | None:
        view = self._view
        nodes = list(self._grown(source))
        admitted = set(nodes)
        open_at = {source: sum(consumer in admitted for consumer in view.consumers(source))}
        """tensor -> how many of its consumers are still to come"""
        if open_at[source] < 2:
            return None
        for count, node_index in enumerate(nodes, 1):
            for name in dict.fromkeys(view.inputs(node_index)):
                open_at[name] -= 1
                if not open_at[name]:
                    del open_at[name]
            for name in view.outputs(node_index):
                open_at[name] = len(view.consumers(name)) + view.is_output(name)
            if len(open_at) == 1 and open_at.keys() == set(view.outputs(node_index)):
                return self._with_factors(source, next(iter(open_at)), frozenset(nodes[:count]))
        return None

    def _with_factors(self, source: str, result: str, nodes: frozenset[int]) -> Function:
        """A function with what belongs to it behind its last node: a number, the scale and shift of a normalisation."""
        view, kind = self._view, self._kind(nodes)
        factors = _AFFINE if kind == "normalisation" else {"Mul", "Div"}
        most = _MOST_AFFINE if kind == "normalisation" else int(kind == "activation" and self._leaves_a_number(nodes))
        for _ in range(most):
            consumers = view.consumers(result)
            if len(consumers) != 1 or view.is_output(result) or view.op(consumers[0]) not in factors:
                break
            if view.inputs(consumers[0]) != [result]:
                break
            nodes |= set(consumers)
            (result,) = view.outputs(consumers[0])
        return Function(source, result, nodes, kind)

    def _leaves_a_number(self, nodes: frozenset[int]) -> bool:
        """Whether a formula may end with a number: 1/2 in GELU, 1/6 in hard-swish."""
        return not _NUMBERED.isdisjoint(map(self._view.op, nodes))

    def _grown(self, source: str) -> Iterator[int]:
        """The nodes that compute with nothing but a tensor, in the order of the graph, as far as they can be one."""
        view, produced = self._view, {source}
        waiting = [(view.place[p], p) for p in view.consumers(source) if p in view.place]
        heapq.heapify(waiting)
        seen = {p for _, p in waiting}
        found = 0
        while waiting and found < _LARGEST:
            _, node_index = heapq.heappop(waiting)
            if view.op(node_index) not in _WITHIN or not produced.issuperset(view.inputs(node_index)):
                continue
            found += 1
            yield node_index
            produced.update(view.outputs(node_index))
            for consumer in view.downstream(node_index) - seen:
                seen.add(consumer)
                heapq.heappush(waiting, (view.place[consumer], consumer))

    def _kind(self, nodes: frozenset[int]) -> str:
        kinds = {self._view.op(node_index) for node_index in nodes}
        if kinds & _GATING and kinds & _REDUCING:
            return "attention"
        if "Softmax" in kinds or ("Exp" in kinds and kinds & _REDUCING):
            return "softmax"
        return "normalisation" if kinds & (_REDUCING | _NORMALISING) else "activation"
