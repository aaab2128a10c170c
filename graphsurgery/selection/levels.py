"""Levels: what the tensors of a model with its calls written out are called in the functions that the calls are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

import onnx

from ..graph.index import GraphIndex
from ..graph.local_functions import Key, by_key, key_of
from ..graph.origins import Calls, Origin, Place, inner_names, place_of, runs
from ..modelfile.soundness import standard_opset
from ..modelfile.subgraphs import subgraphs


class Levels:
    """``inside``: the model with its calls written out; ``origins``: where its nodes stand in ``model``."""

    def __init__(self, model: onnx.ModelProto, inside: GraphIndex, origins: Sequence[Origin]) -> None:
        self._index = inside
        self._opset = standard_opset(model)
        self._origins = origins
        self._functions = by_key(model.functions)
        every = {place_of(run): run for each in origins for run in runs(each.calls)}
        self._times = _Times(self._functions).of(model.graph.node)
        self._named = inner_names(model, inside.model.structure, origins)
        self._calls = {(): (), **every}
        self._reversed: dict[Place, dict[str, list[str]]] = {}

    def called(self, tensor: str) -> list[tuple[Calls, str]]:
        """The tensors of a name in functions: the calls that lead there, and what it is called in ``inside``."""
        return [
            (self._calls[place], names[tensor]) for place, names in self._named.items() if place and tensor in names
        ]

    def function(self, calls: Calls) -> onnx.FunctionProto:
        """The function of the last of some calls."""
        return self._functions[key_of(calls[-1].node)]

    def refusal(self, calls: Calls) -> str:
        """Why the function of the last call cannot be changed for it; "" where it can."""
        times = self._times[key_of(calls[-1].node)]
        if times != 1:
            return f"it is called {times} times"
        own = standard_opset(self.function(calls))
        return "" if own == self._opset else f"it is written in opset {own}, and the model in {self._opset}"

    def origin(self, tensor: str) -> Origin | None:
        """Where the node stands that gives a tensor."""
        producer = self._index.producer.get(tensor)
        return None if producer is None else self._origins[producer]

    def outermost(self, tensor: str) -> Calls:
        """Where a tensor is given to all that read it: in the call of its node, or, where nothing in that reads it, in
        the one around that.
        """
        origin = self.origin(tensor)
        calls = origin.calls if origin else ()
        readers = [self._origins[n].calls for n in self._index.consumers.get(tensor, ())]
        while calls and self.name(tensor, calls[:-1]) and not any(_within(each, calls) for each in readers):
            calls = calls[:-1]
        return calls

    def in_front_of(self, tensor: str, nodes: Set[int]) -> Calls:
        """Where a tensor is read by some nodes alone: in the innermost call that they are all in, or, where it comes
        from outside of that and nothing else in it reads it, in the one around that.
        """
        origin = self.origin(tensor)
        runs = [self._origins[n].calls for n in nodes]
        calls = runs[0]
        while not all(_within(run, calls) for run in runs):
            calls = calls[:-1]
        while calls and (origin is None or not _within(origin.calls, calls)):
            if not self.name(tensor, calls[:-1]) or not set.isdisjoint(*self.split(tensor, nodes, calls[:-1])):
                break
            calls = calls[:-1]
        return calls

    def name(self, tensor: str, calls: Calls) -> str:
        """What a tensor is called in the function of the last call; "" where it has no name of its own there."""
        names = self._names_in(place_of(calls)).get(tensor, [])
        return names[0] if len(names) == 1 else ""

    def _names_in(self, place: Place) -> dict[str, list[str]]:
        if place not in self._reversed:
            table = self._reversed[place] = {}
            for name, here in self._named[place].items():
                table.setdefault(here, []).append(name)
        return self._reversed[place]

    def position(self, node_index: int, calls: Calls) -> int | None:
        """Which node of the function of the last call a node is in; None for one outside."""
        origin = self._origins[node_index]
        if not _within(origin.calls, calls):
            return None
        return origin.calls[len(calls)].position if len(origin.calls) > len(calls) else origin.position

    def split(self, tensor: str, chosen: Set[int], calls: Calls) -> tuple[set[int], set[int]]:
        """Of the readers of a tensor, in a function: the nodes that are among the chosen, and those that are not; a
        node with both is among both.
        """
        readers = {n: self.position(n, calls) for n in self._index.consumers.get(tensor, ())}
        mine = {position for n, position in readers.items() if position is not None and n in chosen}
        rest = {position for n, position in readers.items() if position is not None and n not in chosen}
        return mine, rest


def _within(run: Calls, calls: Calls) -> bool:
    return place_of(run[: len(calls)]) == place_of(calls)


class _Times:
    """How often functions are called: by nodes, in bodies, and by the functions that these call in turn."""

    def __init__(self, functions: Mapping[Key, onnx.FunctionProto]) -> None:
        self._functions = functions
        self._known: dict[Key, Counter[Key]] = {}

    def of(self, nodes: Iterable[onnx.NodeProto]) -> Counter[Key]:
        """The calls that some nodes stand for."""
        found = Counter[Key]()
        for node in nodes:
            key = key_of(node)
            if key in self._functions:
                if key not in self._known:
                    self._known[key] = self.of(self._functions[key].node)
                found[key] += 1
                found.update(self._known[key])
            for graph in subgraphs(node):
                found.update(self.of(graph.node))
        return found
