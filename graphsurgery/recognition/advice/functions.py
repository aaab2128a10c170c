"""Functions that a graph writes out: hard-swish as Add, Clip, Mul and Div, a LayerNorm, a softmax. Each is one place.

A *function* begins at one tensor and ends at another, the first that everything made of the beginning goes through; in
between are only pointwise operators, reductions, and what brings their results into shape. A single pointwise operator
is the smallest one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..graph_view import View

POINTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Neg", "Abs", "Reciprocal", "Erf", "Sign", "Max", "Min"}
    | {"Tanh", "Sigmoid", "HardSigmoid", "Softplus", "Softsign", "Clip", "Where", "Greater", "GreaterOrEqual", "Less"}
    | {"LessOrEqual", "Equal", "Not", "Sin", "Cos", "Sinh", "Cosh", "Atan", "Floor", "Ceil", "Round", "Relu"}
    | {"LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "HardSwish", "Swish", "Gelu", "Mish"}
)
SCALING = frozenset({"Mul", "Div", "Add", "Sub"})
"""operators that scale or shift a tensor where they read nothing else"""
_REDUCING = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"}
    | {"ReduceLogSumExp", "GlobalAveragePool", "GlobalMaxPool"}
)
NORMALISING = frozenset(
    {"InstanceNormalization", "LayerNormalization", "GroupNormalization", "LpNormalization", "Softmax", "LogSoftmax"}
)
_GATING = frozenset({"Sigmoid", "HardSigmoid"})
_SHAPING = frozenset({"Reshape", "Transpose", "Expand", "Unsqueeze", "Squeeze", "Flatten"})
_WITHIN = POINTWISE | _REDUCING | NORMALISING | _SHAPING
_CENTRING = frozenset({"Sub", "ReduceMean", "ReduceMax", "GlobalAveragePool", "GlobalMaxPool"})
_NUMBERED = frozenset({"Erf", "Tanh", "Clip", "Min"})
"""operators of the formulas with a number that may stand behind the product"""
_AFFINE = _SHAPING | {"Mul", "Add"}
_MOST_AFFINE = 3
"""nodes: the shape of before, scale, shift"""
_LARGEST = 40
"""nodes; GELU by tanh, multiplied out, has 9, and a GroupNorm 15"""


@dataclass(frozen=True, slots=True)
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
        if root not in self._inside:
            return None
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

    @cached_property
    def _inside(self) -> set[str]:
        """The tensors that are inside of some function: few, and for all others there is nothing to look for."""
        view, found = self._view, set[str]()
        for source in dict.fromkeys(name for node_index in view.active for name in view.inputs(node_index)):
            if (function := self.of(source)) is not None:
                made = {name for node_index in function.nodes for name in view.outputs(node_index)}
                found |= made - {function.result}
        return found

    def behind(self, root: str) -> Function | None:
        """The pointwise function that is all that reads a tensor; None where something else does."""
        view, consumers = self._view, self._view.consumers(root)
        if view.is_output(root):
            return None
        found = self.of(root) if len(consumers) > 1 else self._run(root)
        if found is None or not found.nodes.issuperset(consumers):
            return None
        return found if found.kind == "activation" else None

    def is_one_activation(self, function: Function) -> bool:
        """Whether a pointwise function is a single operator, or x times something that is made of x."""
        view = self._view
        if len(view.consumers(function.source)) == 1:
            return True
        last = max(function.nodes, key=view.place.__getitem__)
        names = view.inputs(last)
        return view.op(last) in ("Mul", "Div") and (len(names) == 1 or len({*names, function.source}) == len(names))

    def of(self, root: str) -> Function | None:
        """The function in which all of a tensor's consumers that compute nothing but with it come together again."""
        if root not in self._known:
            self._known[root] = self._find(root) if self._may_begin(root) else None
        return self._known[root]

    def _may_begin(self, root: str) -> bool:
        """Whether two nodes read a tensor that can be of one function."""
        consumers = self._view.consumers(root)
        return len(consumers) > 1 and sum(op in _WITHIN for op in map(self._view.op, consumers)) > 1

    def _run(self, root: str) -> Function | None:
        """One pointwise operator that reads nothing else, with the numbers before it, and behind it where it clips."""
        view, nodes = self._view, list[int]()
        following = self._following(root)
        while following is not None and view.op(following) in SCALING:
            nodes.append(following)
            following = self._following(view.outputs(following)[0])
        if following is not None:
            clips = bool(nodes) and view.op(following) == "Clip"
            nodes.append(following)
            scale = self._following(view.outputs(following)[0]) if clips else None
            if scale is not None and view.op(scale) in SCALING:
                nodes.append(scale)
        return Function(root, view.outputs(nodes[-1])[0], frozenset(nodes), "activation") if nodes else None

    def _following(self, root: str) -> int | None:
        """The pointwise operator that is all that reads a tensor, and reads nothing else."""
        view, consumers = self._view, self._view.consumers(root)
        if len(consumers) != 1 or view.is_output(root):
            return None
        alone = set(view.inputs(consumers[0])) == {root} and len(view.outputs(consumers[0])) == 1
        return consumers[0] if alone and view.op(consumers[0]) in POINTWISE else None

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
                return self._completed(source, next(iter(open_at)), frozenset(nodes[:count]))
        return None

    def _completed(self, source: str, result: str, nodes: frozenset[int]) -> Function:
        """A function with what belongs to it: where only a mean or maximum is taken off, what is made of the rest."""
        view = self._view
        if _CENTRING.issuperset(map(view.op, nodes)):
            between = self._following(result)
            start = view.outputs(between)[0] if between is not None and view.op(between) == "Exp" else result
            rest = self.of(start)
            if rest is not None and rest.nodes.issuperset(view.consumers(start)):
                nodes |= rest.nodes if between is None or start == result else rest.nodes | {between}
                return Function(source, rest.result, nodes, self._kind(nodes))
        return self._with_factors(source, result, nodes)

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
            for consumer in (view.downstream(node_index) - seen) & view.place.keys():  # nodes of a cycle have no place
                seen.add(consumer)
                heapq.heappush(waiting, (view.place[consumer], consumer))

    def _kind(self, nodes: frozenset[int]) -> str:
        kinds = {self._view.op(node_index) for node_index in nodes}
        if kinds & _GATING and kinds & _REDUCING:
            return "attention"
        if "Softmax" in kinds or ("Exp" in kinds and kinds & _REDUCING):
            return "softmax"
        return "normalisation" if kinds & (_REDUCING | NORMALISING) else "activation"
