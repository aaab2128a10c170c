"""Selectors on a live model: module paths directly, roles and types of blocks through an export of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from torch import nn

from ..errors import SelectorError, option
from ..graph.module_paths import Module
from ..messages import listed
from ..selection.modules import PathFinder
from ..selection.parser import Inside, Named, Operator, Selector, Word, parse
from .exported import Exported


@dataclass(frozen=True)
class Chosen:
    """The modules that one selector names, in the order of the model."""

    selector: str
    paths: tuple[str, ...]

    @property
    def is_one(self) -> bool:
        """Whether it names one module, in which case there is no doubt about what is meant."""
        return len(self.paths) == 1


class LiveSelection:
    """Finds what selectors name in a live model."""

    def __init__(self, model: nn.Module, example: object) -> None:
        self._model = model
        self._example = example
        self.modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
        self._aliases: dict[int, list[str]] = {}
        for name, module in self.modules.items():
            self._aliases.setdefault(id(module), []).append(name)
        self.first = {name: self.names(name)[0] for name in self.modules}
        """path of a module -> the first of its paths"""
        known = {name: Module(name, name) for name in self.modules}
        self._paths = PathFinder(self, known, lambda path: type(self.modules[path]).__name__)

    def names(self, path: str) -> list[str]:
        """All paths of the module at a path."""
        return self._aliases[id(self.modules[path])]

    @cached_property
    def exported(self) -> Exported:
        """An export of the model, made when something needs it."""
        return Exported(self._model, self._example)

    def accepted(self, candidates: Mapping[str, str]) -> dict[str, str]:
        """All of some modules: what a module of a live model gives is looked at when the model runs."""
        return dict(candidates)

    def listed(self, candidates: Mapping[str, str], most: int = 6) -> str:
        """Modules, each given with its class, for messages."""
        return listed([f"{path} ({kind})" for path, kind in candidates.items()], most)

    def choose(self, selector: str, position: str) -> Chosen:
        """The modules after, or before, which a selector names places. SelectorError if there are none."""
        paths = self._by_path(selector)
        return Chosen(selector, tuple(self.exported.modules(selector, position) if paths is None else paths))

    def choose_consumers(self, selectors: Sequence[str], path: str, readers: Mapping[str, str]) -> list[str]:
        """Which of the modules ``readers`` (path -> how it is called), which take what a module gives, are named.

        SelectorError if a selector names none of them.
        """
        found = list[str]()
        for selector in selectors:
            paths = self._by_path(selector)
            if paths is None:
                named = self.exported.consumers(selector, path, readers)
            else:
                named = [r for r in readers if any(r == each or r.startswith(f"{each}.") for each in paths)]
            if not named:
                known = listed(list(readers.values())) if readers else "no module"
                sentence = f"{option('consumers')} names no consumer of what {path} gives, which {known} takes"
                raise SelectorError(f"{sentence}: {selector!r}", candidates=list(readers))
            found += named
        return list(dict.fromkeys(found))

    def _by_path(self, selector: str) -> list[str] | None:
        """What a selector names by module paths alone; None if it takes an export to tell."""
        paths = dict[str, None]()
        for part in parse(selector):
            self._refuse(part)
            found = self._paths.matches(part.path) if isinstance(part, Word) else []
            if not found and isinstance(part, Word) and not (part.block and part.block.type.text[0].isupper()):
                self._no_match(part)
            if not found:
                return None
            paths |= dict.fromkeys(found)
        order = {name: place for place, name in enumerate(self.modules)}
        return sorted(paths, key=order.__getitem__)

    def _refuse(self, part: Selector) -> None:
        """SelectorError for what only a file has."""
        if isinstance(part, Named):
            what = {"tensor": "names of tensors", "node": "nodes", "output": "names of outputs"}[part.kind]
            raise part.name.error(f"a live model has no {what}, but modules; name one by its path, such as model.8")
        operator = part.what if isinstance(part, Inside) else part
        if isinstance(operator, Operator):
            raise operator.type.error("a live model has modules, not operators; name one by its path, such as model.8")
        if isinstance(part, Inside) and not isinstance(part.scope, Word | None):
            raise SelectorError("a live model has no operators to look inside of; name a module by its path")

    def _no_match(self, word: Word) -> NoReturn:
        written, near = word.path.written, self._paths.nearest(word.path)
        sentence = f"no module of the model matches {written.text!r}; the nearest are {self.listed(near)}"
        raise written.part(self._paths.known(word.path)).error(sentence, near)
