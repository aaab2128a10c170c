"""Narrowing: an insertion for some of the readers of a tensor only."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import SelectorError
from ..graph import quantisation
from ..graph.index import GraphIndex
from ..graph.module_paths import ModuleTree
from ..messages import listed
from .branches import Reader
from .resolver import Resolver
from .text import Text


class Narrowing:
    """The readers that selectors of consumers name. SelectorError for a selector that names nothing."""

    def __init__(self, selectors: Sequence[str], resolver: Resolver, index: GraphIndex, tree: ModuleTree) -> None:
        self._chosen = {selector: resolver.resolve_readers(selector) for selector in selectors}
        for readers in self._chosen.values():
            readers |= quantisation.feeding(index, readers, quantisation.PASSING)
        self._every = set[Reader]().union(*self._chosen.values())
        self._unused = dict.fromkeys(selectors)
        self._seen: dict[str, None] = {}
        self._beside = resolver.edges.beside
        self._index = index
        self._tree = tree

    def narrowed(self, tensor: str) -> tuple[str, set[Reader]]:
        """The tensor at which to insert for the chosen readers of this one, and the readers to rewire.

        SelectorError if none of its readers is chosen.
        """
        at, readers = self._beside.branch(tensor, self._every)
        self._seen[tensor] = None
        if not readers:
            raise self._no_reader(list(self._chosen), [tensor])
        reached = self._beside.leaves(tensor) | self._beside.readers(tensor)
        self._unused = {name: None for name in self._unused if not self._chosen[name] & reached}
        return at, readers

    def check(self) -> None:
        """SelectorError if one of the selectors named no reader of any tensor."""
        if self._unused:
            raise self._no_reader(list(self._unused), list(self._seen))

    def _no_reader(self, selectors: Sequence[str], tensors: Sequence[str]) -> SelectorError:
        readers = dict.fromkeys(self._spelled(r) for t in tensors for r in sorted(self._beside.leaves(t), key=str))
        whose = repr(tensors[0]) if len(tensors) == 1 else "the tensors"
        has = f"is read by {listed(readers, 8)}" if readers else "is read by nothing"
        has = has if len(tensors) == 1 else has.replace("is", "are", 1)
        if len(selectors) == 1:
            return Text.of(selectors[0]).strip().error(f"--consumers names no reader of {whose}, which {has}")
        return SelectorError(f"{' and '.join(map(repr, selectors))} name no reader of {whose}, which {has}")

    def _spelled(self, reader: Reader) -> str:
        """A selector for a reader."""
        if isinstance(reader, str):
            return f"output:{reader}"
        path = self._tree.of_node[reader]
        if path:
            return self._tree.modules[path].display
        node = self._index.nodes[reader]
        if node.name and len(self._index.node_names[node.name]) == 1:
            return f"node:{node.name}"
        same = [p for p, other in enumerate(self._index.nodes) if other.op_type == node.op_type]
        return f"op:{node.op_type}[{same.index(reader)}]"
