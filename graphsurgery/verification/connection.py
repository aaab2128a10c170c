"""Whether inserted blocks are connected: each reads its site, its recorded consumers read it, and it reaches an output.

What a block computes is nothing to a model whose consumers read past it. This is read off the graph; nothing is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from ..graph.index import GraphIndex, upstream
from ..messages import listed
from ..modelfile.record import OUTPUT, UNNAMED, Insertion


@dataclass(frozen=True)
class Connection:
    """How one block is connected."""

    passed: bool
    sentence: str
    """what it reads and what reads it; or what is wrong"""


class Connections:
    """The connections of the insertions of one model."""

    def __init__(self, index: GraphIndex) -> None:
        self._index = index

    def check(self, insertion: Insertion) -> Connection:
        """How a block is connected, against its record."""
        nodes = {n for name in insertion.nodes for n in self._index.node_names.get(name, ())}
        if missing := [name for name in insertion.nodes if name not in self._index.node_names]:
            return Connection(False, f"its record has {listed(missing)}, and the model does not")
        consumers = self._consumers(insertion, nodes)
        wrong = next(self._faults(insertion, nodes, consumers), None)
        if wrong is not None:
            return Connection(False, wrong)
        readers = [self._index.label(n) for n in sorted(consumers)]
        readers += [f"the output {name!r}" for name in self._behind(insertion, nodes) if name in self._index.outputs]
        return Connection(True, f"reads {insertion.site.tensor}; read by {listed(readers)}")

    def _faults(self, insertion: Insertion, nodes: set[int], consumers: set[int]) -> Iterator[str]:
        """What is wrong, the plainest first."""
        index, site, output = self._index, insertion.site, insertion.output_tensor
        produced = {name for n in nodes for name in index.nodes[n].output}
        entering = sorted(
            name for n in nodes for name in index.reads(n) if name not in produced and not index.is_constant(name)
        )
        if wrong := [name for name in dict.fromkeys(entering) if name != site.tensor]:
            yield f"it reads {listed(list(map(repr, wrong)))}, and its record says that it reads {site.tensor!r}"
        if not entering:
            yield f"it does not read {site.tensor!r}, which its record says that it reads"
        if output not in produced:
            yield f"it does not give {output!r}, which its record says that it gives"
        yield from self._astray(insertion, consumers)
        outputs = index.outputs.keys() & self._behind(insertion, nodes)
        if not consumers and not outputs:
            yield f"nothing reads {output!r}, which it gives" + self._back(self._unrecorded(insertion, nodes))
        if not outputs and consumers.isdisjoint(self._live):
            yield f"no output of the model depends on {output!r}, which it gives"
        gone = Counter(site.consumers) - self._names(consumers)
        if gone and (back := self._unrecorded(insertion, nodes)):
            yield f"{listed(sorted(gone))} should read it" + self._back(back)

    def _astray(self, insertion: Insertion, consumers: set[int]) -> Iterator[str]:
        """Consumers that read something else than the record says."""
        index, site = self._index, insertion.site
        recorded, others, reading = Counter(site.consumers), Counter(site.others), self._names(consumers)
        for label, count in recorded.items():
            there = index.node_names.get(label, [])
            if reading[label] < min(count, len(there) - others[label]):
                back = any(n not in consumers and site.tensor in index.reads(n) for n in there)
                instead = f"reads {site.tensor!r} in front of it instead" if back else "does not"
                yield f"{label!r} should read it, and {instead}"
        for n in sorted(consumers):
            label = index.nodes[n].name
            alone = insertion.replaced is None and label not in others  # what stood in its place was read beside it
            if label in recorded and alone and site.tensor in index.reads(n):
                yield f"{label!r} should read it alone, and reads {site.tensor!r} too"
            if label in others and label not in recorded:
                yield f"{label!r} reads it, and its record says that this node goes on reading {site.tensor!r}"

    def _consumers(self, insertion: Insertion, nodes: set[int]) -> set[int]:
        """The nodes that read a block, themselves or behind other blocks."""
        read = (n for tensor in self._behind(insertion, nodes) for n in self._index.consumers.get(tensor, ()))
        return {n for n in read if n not in nodes}

    def _behind(self, insertion: Insertion, nodes: set[int]) -> list[str]:
        """What a block gives, and what the blocks give that are chained after it."""
        owner, found = self._index.insertion_of, [insertion.output_tensor]
        for tensor in found:
            for n in self._index.consumers.get(tensor, ()):
                if n in owner and n not in nodes and owner[n].output_tensor not in found:
                    found.append(owner[n].output_tensor)
        return found

    def _unrecorded(self, insertion: Insertion, nodes: set[int]) -> list[int]:
        """The nodes that read the site of a block and that no record accounts for."""
        index, site = self._index, insertion.site
        found = [
            n
            for n in index.consumers.get(site.tensor, ())
            if n not in nodes and n not in index.insertion_of and index.nodes[n].name not in site.others
        ]
        for label in site.others:  # those that have no name, or another by now
            if label not in index.node_names and (operator := UNNAMED.fullmatch(label)):
                same = [n for n in found if index.nodes[n].op_type == operator[1]]
                found = [n for n in found if n not in same[:1]]
            elif label not in index.node_names and not label.startswith(OUTPUT):
                found = found[1:]
        return found

    def _names(self, consumers: Iterable[int]) -> Counter[str]:
        return Counter(self._index.nodes[n].name for n in consumers)

    def _back(self, readers: Iterable[int]) -> str:
        """That these read what the block reads."""
        labels = [repr(self._index.label(n)) for n in readers]
        return f", and what it reads itself is read by {listed(labels)}, too" if labels else ""

    @cached_property
    def _live(self) -> set[int]:
        """The nodes that an output of the model depends on."""
        index = self._index
        return set(upstream(index.outputs, index.producer, lambda node_index: sorted(index.reads(node_index))))
