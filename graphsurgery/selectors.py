"""Selectors: text that names places in a model. See docs/selectors.md for the grammar.

tensor:NAME        the tensor of that name
node:NAME          what the node of that name puts out
PATH               what leaves the module: /model.8, model.8, or a unique end of a longer path (cv2.act)
/model.{4,6,8}     braces: alternatives
/model.*/cv2       globs: * ? [..] within one step of the path, ** over any number of steps
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .errors import SelectorError
from .graphindex import GraphIndex
from .modulepath import ModuleTree, join
from .shapes import ShapeTable


@dataclass(frozen=True)
class Place:
    """What a selector points at: a tensor and, if a module path was given, the path as the user means it."""

    tensor: str
    path: str | None = None


def expand_braces(text: str) -> list[str]:
    """All spellings of a text with alternatives in braces. SelectorError for a brace without its partner.

    >>> expand_braces("/model.{4,6}/cv{1,2}")
    ['/model.4/cv1', '/model.4/cv2', '/model.6/cv1', '/model.6/cv2']
    """
    start = text.find("{")
    if start < 0:
        if "}" in text:
            raise SelectorError(f"the selector {text!r} has a closing brace without an opening one")
        return [text]
    depth, cuts = 0, [start]
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if text[place] == "," and depth == 1:
            cuts.append(place)
        if depth == 0:
            cuts.append(place)
            break
    else:
        raise SelectorError(f"the selector {text!r} has an opening brace without a closing one")
    parts = [text[a + 1 : b] for a, b in pairwise(cuts)]
    return [spelling for part in parts for spelling in expand_braces(text[:start] + part + text[cuts[-1] + 1 :])]


class Resolver:
    """Finds what selectors point at in one model."""

    def __init__(self, index: GraphIndex, tree: ModuleTree, shapes: ShapeTable) -> None:
        self._index = index
        self._tree = tree
        self._shapes = shapes
        self._leaving: dict[str, list[str]] = {}

    def resolve(self, selector: str) -> list[Place]:
        """The places that a selector names, in the order of the model, each tensor once. SelectorError if there are
        none.
        """
        if not selector.strip():
            raise SelectorError("the selector is empty; give a module path such as /model.8")
        kind, colon, name = selector.partition(":")
        if colon and kind == "tensor":
            return [Place(self._tensor(name))]
        if colon and kind == "node":
            return [Place(self._node(name))]
        places: dict[str, Place] = {}
        for spelling in expand_braces(selector):
            for place in self._paths(spelling):
                places.setdefault(place.tensor, place)
        return sorted(places.values(), key=lambda place: self._index.producer.get(place.tensor, -1))

    # ------------------------------------------------------------------ tensors and nodes

    def _tensor(self, name: str) -> str:
        index = self._index
        if name in index.producer or name in index.inputs or name in index.initializers:
            return name
        raise SelectorError(f"the model has no tensor {name!r}{_nearest(name, [*index.inputs, *index.producer])}")

    def _node(self, name: str) -> str:
        index = self._index
        positions = index.node_names.get(name, [])
        if not positions:
            raise SelectorError(f"the model has no node {name!r}{_nearest(name, index.node_names)}")
        if len(positions) > 1:
            choices = ", ".join(f"tensor:{out}" for p in positions for out in index.nodes[p].output)
            raise SelectorError(f"{len(positions)} nodes are called {name!r}; name one by its tensor: {choices}")
        outputs = [out for out in index.nodes[positions[0]].output if out in index.consumers or out in index.outputs]
        return self._only(outputs, f"the node {name!r}")

    # ------------------------------------------------------------------ module paths

    def _paths(self, spelling: str) -> Iterator[Place]:
        tokens = join(spelling.strip().split("/")).split(".")
        if not all(tokens):
            raise SelectorError(f"the selector {spelling!r} has an empty step; write a path such as /model.8/cv2")
        found = self._matches(tokens)
        if not found:
            raise SelectorError(f"no module of the model matches {spelling!r}{self._nearest_paths(tokens)}")
        if len(found) == 1:
            yield Place(self.leaving(found[0], strict=True), found[0])
            return
        leaving = ((path, self.leaving(path, strict=False)) for path in found)
        places = [Place(tensor, path) for path, tensor in leaving if tensor and self._shapes.is_feature_map(tensor)]
        if not places:
            raise SelectorError(f"{len(found)} modules match {spelling!r}, and no image-like tensor leaves any of them")
        yield from places

    def _matches(self, tokens: Sequence[str]) -> list[str]:
        """Paths that the tokens match: from the root, else as the end of a longer path (then only one, or a glob)."""
        modules = self._tree.modules
        if not any(_is_glob(token) for token in tokens):
            path = ".".join(tokens)
            if path in modules:
                return [path]
            ends = [p for p in modules if p.endswith("." + path)]
            if len(ends) > 1:
                raise SelectorError(f"{path!r} is the end of {len(ends)} module paths: {_listed(self._display(ends))}")
            return ends
        whole = [p for p in modules if _match(p.split("."), tokens)]
        return whole or [p for p in modules if _match(p.split("."), ["**", *tokens])]

    def leaving(self, path: str, *, strict: bool) -> str:
        """The tensor that leaves a module. Without exactly one: SelectorError if ``strict``, else ""."""
        leaving = self.leaving_tensors(path)
        if len(leaving) == 1 or strict:
            return self._only(leaving, f"the module {self._tree.modules[path].display!r}")
        return ""

    def leaving_tensors(self, path: str) -> list[str]:
        """The tensors that depend on the model's input, are made in the module and read outside of it."""
        if path not in self._leaving:
            self._leaving[path] = self._find_leaving(path)
        return self._leaving[path]

    def _find_leaving(self, path: str) -> list[str]:
        index = self._index
        inside = set(self._tree.modules[path].nodes)
        leaving = [
            name
            for position in self._tree.modules[path].nodes
            if position in index.active
            for name in index.nodes[position].output
            if name in index.outputs or any(reader not in inside for reader in index.consumers.get(name, ()))
        ]
        if len(leaving) > 1:  # sizes and indices leave modules too; an image-like tensor among them is what is meant
            leaving = [name for name in leaving if self._shapes.is_feature_map(name)] or leaving
        return leaving

    def _only(self, tensors: Sequence[str], what: str) -> str:
        if len(tensors) == 1:
            return tensors[0]
        if not tensors:
            raise SelectorError(f"no tensor leaves {what}")
        choices = ", ".join(f"tensor:{name}" for name in tensors)
        raise SelectorError(f"{len(tensors)} tensors leave {what}; name one: {choices}")

    def _display(self, paths: Iterable[str]) -> list[str]:
        return [self._tree.modules[path].display for path in paths]

    def _nearest_paths(self, tokens: Sequence[str]) -> str:
        modules = self._tree.modules
        if not modules:
            return "; its nodes carry no module paths, so name a tensor: tensor:NAME"
        wanted = ".".join(tokens)
        near = difflib.get_close_matches(wanted, modules, n=4, cutoff=0.4)
        siblings = [path for path in modules if path.count(".") == wanted.count(".") and path not in near]
        near += difflib.get_close_matches(wanted, siblings, n=4 - len(near), cutoff=0.0) if len(near) < 4 else []
        return f"; the nearest are {_listed(self._display(near))}"


def _is_glob(token: str) -> bool:
    return any(character in token for character in "*?[")


def _match(path: Sequence[str], tokens: Sequence[str]) -> bool:
    if not tokens:
        return not path
    if tokens[0] == "**":
        return any(_match(path[skip:], tokens[1:]) for skip in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], tokens[0]) and _match(path[1:], tokens[1:])


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=4, cutoff=0.5)
    return f"; the nearest are {_listed(near)}" if near else ""


def _listed(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
